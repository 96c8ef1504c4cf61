"""Where it runs: requirements and local services."""
