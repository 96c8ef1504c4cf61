"""The decoder, its sizes, and import from and export to Hugging Face."""

IGNORE_INDEX = -100
"""Target of a position without loss: the default `ignore_index` of PyTorch."""
