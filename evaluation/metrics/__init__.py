"""Metrics of ranked lists: accuracy, beyond accuracy, by slice, by popularity, and against k."""
