"""The environment it runs in: requirements, settings, local services, diagnosis, checks."""
