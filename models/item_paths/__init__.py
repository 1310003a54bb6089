"""The local channel: scores a song by the paths that lead to it from the songs that a user listened to."""
