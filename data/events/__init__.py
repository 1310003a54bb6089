"""Listening logs: finding the files, reading them, and turning events into listens and vocabularies."""
