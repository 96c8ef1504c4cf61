"""Near copies: MinHash finds candidates, the exact Jaccard similarity with a document that stays decides.

Greedy, in the order of preference: a document goes only if it is similar enough to one that itself stays, so no chain
of small differences removes anything (transitive clusters do).
"""

from stages.corpus.dedup.near.verify import NearCopy, WordLists, near_copies, near_duplicates_of

__all__ = ["NearCopy", "WordLists", "near_copies", "near_duplicates_of"]
