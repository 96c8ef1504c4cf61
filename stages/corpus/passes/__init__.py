"""The passes over a corpus's documents, and what is global between them."""
