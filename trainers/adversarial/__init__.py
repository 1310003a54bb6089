"""Adversarial training: against fake users in the log, and against small moves of the vectors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
