"""Provenance: the artifacts that a model was built from, and the batches that it was trained on."""
