"""The gate: decides if a new model takes the champion's place."""
