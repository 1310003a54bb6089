"""Federated training on Flower: listens and user vectors stay with groups of users."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
