"""The leakage audit: refuses to train where anything held out can be reached. ``python -m evaluation.audit``."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
