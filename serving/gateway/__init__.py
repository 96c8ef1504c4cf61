"""The public endpoint: routes, API key, limits, request checks and the proxy to the engine."""
