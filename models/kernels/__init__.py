"""The decoder's element-wise loops on CPUs: `cpu.c`, and the Python code that compiles and calls it."""
