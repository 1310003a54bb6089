"""Starts from the weights of an earlier model, matched by the ids of users, songs and artists."""
