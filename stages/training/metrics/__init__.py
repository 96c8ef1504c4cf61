"""A run's metrics: its history, its phases' seconds, and the events that report both."""
