"""What each step does: plain functions from config and inputs to an immutable artifact."""
