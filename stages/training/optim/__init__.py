"""Optimizers, their learning rate, and what is measured of an update."""
