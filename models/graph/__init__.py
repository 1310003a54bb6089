"""Message passing: adjacency, sums over neighbours, sampled neighbourhoods."""
