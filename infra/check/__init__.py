"""What must hold before a change lands (`python -m infra.check`), and what the tests may cost."""
