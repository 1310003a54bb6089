"""Baselines that stand beside every result; each is imported only where it is fitted."""

from typing import TYPE_CHECKING

from data.lazy import lazy_names

if TYPE_CHECKING:  # seen by the analysis that finds which code a stage reaches, and not run
    from evaluation.baselines.popular import popularity as popularity

_MODULES = {
    "BASELINES": "evaluation.baselines.factory",
    "CHOICES": "evaluation.baselines.factory",
    "create_baseline": "evaluation.baselines.factory",
    "popularity": "evaluation.baselines.popular",
}
__all__ = list(_MODULES)
__getattr__ = lazy_names(__name__, _MODULES)
