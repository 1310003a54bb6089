"""Searches for better hyper-parameters: one Optuna study, several processes that work on it, the winner as a config."""
