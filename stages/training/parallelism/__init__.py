"""Ranks, sharded tensors, and activation checkpointing."""
