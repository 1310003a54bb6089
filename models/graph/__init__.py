"""Message passing: the adjacency matrix, sums over neighbours, and sampled neighbourhoods."""
