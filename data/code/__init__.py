"""Python code as data: the imports of a module, digests of code, and classes looked up by name."""
