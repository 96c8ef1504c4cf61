"""The decoder's loops over elements on CPUs, compiled: `cpu.c`, and what calls it."""
