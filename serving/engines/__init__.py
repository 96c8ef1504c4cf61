"""vLLM's processes: start, health, exchange for another model, and end."""
