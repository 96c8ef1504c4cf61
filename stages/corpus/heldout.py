"""Which documents are held out: chosen by the hash of their group, so that no subject is on both sides of the split."""

from __future__ import annotations

import hashlib


def group_of(group: str, title: str, url: str, doc_id: str) -> str:
    """A document's group: the recipe's field, else its title, else its URL, case-folded; else a group of its own."""
    for value in (group, title, url):
        if folded := " ".join(value.casefold().split()):
            return folded
    return f"document {doc_id}"


def is_held_out(group: str, fraction: float, seed: int) -> bool:
    """True for about `fraction` of all groups, chosen by BLAKE2b of group and seed alone."""
    value = hashlib.blake2b(f"{seed}\0{group}".encode(), digest_size=8).digest()
    return int.from_bytes(value, "big") < fraction * 2**64
