"""A synthetic listening log with the structure of a real one."""
