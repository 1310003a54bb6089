"""Baselines that every result is compared with; each is imported only when it is fitted."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
