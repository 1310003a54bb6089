"""Models that turn a graph into vectors and scores of users and songs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
