"""Training on Ray. Nothing else in `stages.training` imports Ray."""
