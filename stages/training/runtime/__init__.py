"""How training's processes run: allocator, backend, imports, number format, compiler."""
