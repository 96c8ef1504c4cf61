"""A folder on the engines' PYTHONPATH, not a package to import: Python itself imports `sitecustomize` from it."""
