"""What stands in a corpus more than once: exact copies, near copies, boilerplate."""
