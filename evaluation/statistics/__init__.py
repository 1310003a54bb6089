"""Confidence intervals and tests over users and seeds."""
