"""Filters: the rules that a document must keep to stay, and what is taken out of it."""
