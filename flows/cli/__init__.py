"""The `headwater` command, a file a group of commands."""
