"""The decoder, its sizes, and import from and export to Hugging Face."""
