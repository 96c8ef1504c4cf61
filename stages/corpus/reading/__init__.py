"""Reads the files of a source as records and documents."""
