"""vLLM engines, and the gateway in front of them."""
