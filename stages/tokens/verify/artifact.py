"""The whole artifact: which checks are made, in which order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stages.store.artifact import Artifact
from stages.tokens.table import SHARDS
from stages.tokens.verify.corpus import check_corpus, check_sources
from stages.tokens.verify.documents import check_index, read_documents
from stages.tokens.verify.files import Stream, check_bytes, check_token_bytes, read_stream
from stages.tokens.verify.finding import Finding, Read
from stages.tokens.verify.shards import check_shards, read_shard_table


def bytes_to_read(tokens: Artifact) -> int:
    """What `verify_tokens` reads of the artifact."""
    return sum(entry.bytes for entry in tokens.files())


def verify_tokens(tokens: Artifact, corpus: Artifact | None, read: Read) -> Iterator[Finding]:
    """What is wrong with a tokens artifact, as it is found. Every byte is read, memory does not grow with the shards.

    Checked are the checksums of all files; that ids are below the vocabulary's size; that EOS stands at the end of each
    document, in the filler after the last one, and nowhere else; that `stream.json` and the tables of shards and of
    documents add up with each other and with the shards; that indexes are sorted permutations; and, held against the
    corpus, that every document is in its place. The held-out part likewise.

    Args:
        tokens: the artifact; from an object store its files are fetched first.
        corpus: what it was made from; None where that is gone: then documents are not compared with it.
        read: called with the bytes that were read since, from several threads.
    """
    folder = tokens.local()
    for entry in tokens.files():
        if "shards/" not in entry.path:  # those are read later, together with their tokens
            yield from check_bytes(folder, entry, read)
    stream, findings = read_stream(folder, tokens.manifest.how)
    yield from findings
    if stream is None or findings:
        return  # all the rest would be held against what is wrong itself
    yield from check_token_bytes(folder, stream)
    for part in ("", "heldout/"):
        yield from _check_part(tokens, corpus, folder, part, stream, read)


def _check_part(
    tokens: Artifact, corpus: Artifact | None, folder: Path, part: str, stream: Stream, read: Read
) -> Iterator[Finding]:
    """Training documents (part "") or the held-out ones ("heldout/")."""
    of_corpus = part.rstrip("/") or "documents"
    sources, findings = read_shard_table(tokens, folder, part, stream)
    yield from findings
    for source, shards in sources.items():
        table, findings = read_documents(folder, part, source, sum(shard.tokens for shard in shards))
        yield from findings
        if table is not None:
            for column in ("doc_id", "uri"):
                yield from check_index(folder, f"{part}index/{source}.{column}.npy", table, column)
            if corpus is not None:
                yield from check_corpus(corpus, of_corpus, source, table)
        # Of a damaged table it is known already that ends of documents are not where it says.
        yield from check_shards(folder, shards, stream, None if findings else table, read)
    if corpus is not None:
        yield from check_sources(corpus, of_corpus, f"{part}{SHARDS}", sources)
