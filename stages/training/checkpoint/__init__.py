"""Checkpoints: written beside the training, committed by their manifest, verified on load."""
