"""Baselines that stand beside every result; each is imported only where it is fitted."""

from data.lazy import lazy_names

_MODULES = {
    "BASELINES": "evaluation.baselines.factory",
    "CHOICES": "evaluation.baselines.factory",
    "create_baseline": "evaluation.baselines.factory",
    "popularity": "evaluation.baselines.popular",
}
__all__ = list(_MODULES)
__getattr__ = lazy_names(__name__, _MODULES)
