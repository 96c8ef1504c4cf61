"""Verification of a whole artifact: all checks in order."""

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
    """Bytes that `verify_tokens` reads."""
    return sum(entry.bytes for entry in tokens.files())


def verify_tokens(tokens: Artifact, corpus: Artifact | None, read: Read) -> Iterator[Finding]:
    """Yields the errors in a tokens artifact. Reads every byte; memory does not grow with the shards.

    Checks the checksums of all files; that ids are below the vocabulary size; that EOS is at the end of each document,
    in the padding after the last one, and nowhere else; that `stream.json` and the tables of shards and documents are
    consistent with each other and with the shards; that indexes are sorted permutations; and, compared with the corpus,
    that every document is in its place. The same for the held-out split.

    Args:
        tokens: the artifact; from an object store its files are downloaded first.
        corpus: the corpus it was built from; None if it does not exist any more: documents are then not compared.
        read: called from several threads with the bytes read since its last call.
    """
    folder = tokens.local()
    for entry in tokens.files():
        if "shards/" not in entry.path:  # checked later, together with their tokens
            yield from check_bytes(folder, entry, read)
    stream, findings = read_stream(folder, tokens.manifest.resolved_config)
    yield from findings
    if stream is None or findings:
        return  # the other checks depend on stream.json
    yield from check_token_bytes(folder, stream)
    for split in ("", "heldout/"):
        yield from _check_split(tokens, corpus, folder, split, stream, read)


def _check_split(
    tokens: Artifact, corpus: Artifact | None, folder: Path, split: str, stream: Stream, read: Read
) -> Iterator[Finding]:
    """Checks the training documents (split "") or the held-out ones ("heldout/")."""
    of_corpus = split.rstrip("/") or "documents"
    sources, findings = read_shard_table(tokens, folder, split, stream)
    yield from findings
    for source, shards in sources.items():
        table, findings = read_documents(folder, split, source, sum(shard.tokens for shard in shards))
        yield from findings
        if table is not None:
            for column in ("doc_id", "uri"):
                yield from check_index(folder, f"{split}index/{source}.{column}.npy", table, column)
            if corpus is not None:
                yield from check_corpus(corpus, of_corpus, source, table)
        # The ends of documents are not compared with a table that is known to be damaged.
        yield from check_shards(folder, shards, stream, None if findings else table, read)
    if corpus is not None:
        yield from check_sources(corpus, of_corpus, f"{split}{SHARDS}", sources)
