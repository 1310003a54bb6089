"""A made-up listening log with the structure of a real one."""
