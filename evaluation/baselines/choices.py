"""Names of the baselines, and the choices of ``--baselines``; only the chosen baseline is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data.code.lookup import class_path, find_class
from evaluation.baselines.baseline import Baseline

BASELINES = {
    "popularity": "evaluation.baselines.popular:Popularity",
    "recent-popularity": "evaluation.baselines.popular:RecentPopularity",
    "item-knn-cosine": "evaluation.baselines.item_knn:CosineItemKNN",
    "item-knn-bm25": "evaluation.baselines.item_knn:BM25ItemKNN",
    "ials": "evaluation.baselines.ials:IALS",
    "ease": "evaluation.baselines.ease:EASE",
}
FAST = ("popularity", "recent-popularity", "item-knn-cosine", "item-knn-bm25")
CHOICES = {"none": ("popularity",), "fast": FAST, "all": tuple(BASELINES)}
"""Value of ``--baselines`` to baselines: popularity is always one of them, ``fast`` takes seconds."""


def create_baseline(name: str, given: Mapping[str, Any] | None = None) -> Baseline:
    """Create a baseline by its name.

    Args:
        name: a name of ``BASELINES``, or ``package.module:Class`` of a subclass of ``Baseline``.
        given: its parameters; the others have their defaults.

    Raises:
        InputError: the name or a key is unknown, or a value is not allowed.
    """
    found: type[Baseline] = find_class("baseline", name, BASELINES, Baseline)
    return found.parse(given or {}, f"the baseline {name}")


def baseline_module(name: str) -> str:
    """Return the name of a baseline's module without importing it; raises InputError for an unknown name."""
    return class_path("baseline", name, BASELINES).partition(":")[0]
