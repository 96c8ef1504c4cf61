"""The training loop: batches, updates, validation."""
