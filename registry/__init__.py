"""Bundles, versions and the champion. ``registry.load("champion", name="songgraph")``."""

from data.lazy import lazy_names

_MODULES = {
    "load": "registry.loading",
    "Recommender": "registry.recommender",
    "exists": "registry.location",
}
__all__ = list(_MODULES)
__getattr__ = lazy_names(__name__, _MODULES)
