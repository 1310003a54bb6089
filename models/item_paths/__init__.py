"""The local channel: scores a song by the paths that lead to it from a user's own songs."""
