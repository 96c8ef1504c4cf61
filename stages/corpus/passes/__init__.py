"""The passes over a corpus's documents, and the global steps between them."""
