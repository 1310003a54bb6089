"""Prefect flows: each body reads as the diagram of the run."""

import os

# Prefect decides when it is imported whether it sends usage data, before any setting of pyproject.toml is read.
os.environ.setdefault("DO_NOT_TRACK", "1")
