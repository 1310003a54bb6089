"""Python code as data: which modules a module imports, a digest of them, and classes found by name."""
