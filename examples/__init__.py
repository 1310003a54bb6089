"""Examples of your own trainers, to copy and change."""
