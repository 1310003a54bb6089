"""Stages: one Prefect task a file, policy only; the work is a call into a library package."""
