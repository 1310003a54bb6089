"""Measure what each trainer is for: one module per trainer, each with a function ``claims``."""
