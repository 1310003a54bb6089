"""What each trainer says it is good for, measured: one module a trainer, each with a function ``claims``."""
