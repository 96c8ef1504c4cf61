"""A model that exists, brought into the store: what continued pretraining starts from."""
