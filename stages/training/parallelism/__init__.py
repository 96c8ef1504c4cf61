"""Ranks, sharded tensors, and what is computed twice to save memory."""
