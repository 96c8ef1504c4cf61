"""vLLM's processes: started, watched, exchanged and ended."""
