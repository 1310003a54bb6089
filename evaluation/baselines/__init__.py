"""Baselines that stand beside every result; each is imported only where it is fitted."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
