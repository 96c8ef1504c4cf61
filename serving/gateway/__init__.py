"""The public endpoint: its door, keys, limits and status."""
