"""The bundle: one folder with all that a version is made of, and one digest."""
