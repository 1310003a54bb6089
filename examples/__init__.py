"""Trainers from outside the project, to copy and change."""
