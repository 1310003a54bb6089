"""Prefect tasks: one stage a file, policy only; the work is a call into a library package."""

import os

# As in flows: Prefect decides when it is imported whether it sends usage data.
os.environ.setdefault("DO_NOT_TRACK", "1")
