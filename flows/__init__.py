"""When and in what order: Prefect flows, recipes and the command line."""
