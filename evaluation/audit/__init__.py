"""The leakage audit: refuse to train if anything held out can be reached. ``python -m evaluation.audit`` runs it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
