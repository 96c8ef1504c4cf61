"""Near copies: MinHash finds candidates; the exact Jaccard similarity with a kept document decides.

Greedy, in order of preference: a document is removed only if it is similar enough to one that is itself kept, so a
chain of small differences removes nothing (unlike in transitive clustering).
"""

from stages.corpus.dedup.near.verify import NearCopy, WordLists, near_copies

__all__ = ["NearCopy", "WordLists", "near_copies"]
