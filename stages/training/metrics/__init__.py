"""A run's metrics: its history, its phases' seconds, and the events that tell of both."""
