"""The cache of stages: keys, stored results, and the Prefect task that looks one up or computes it."""
