"""vLLM engines and the gateway before them."""
