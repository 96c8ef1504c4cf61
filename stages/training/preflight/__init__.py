"""What is checked before a run takes its first step: configuration, memory, ranks that run the same code, the plan."""
