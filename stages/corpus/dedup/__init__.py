"""Repeated content of a corpus: exact copies, near copies, boilerplate."""
