"""Listening logs: finds the files, reads them, and turns events into listens and vocabularies."""
