"""Names of baselines, and which stand beside a result; only the chosen one is imported."""

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
"""What ``--baselines`` stands for: popularity is always there, ``fast`` takes seconds."""


def create_baseline(name: str, given: Mapping[str, Any] | None = None) -> Baseline:
    """The baseline of that name, ready to be fitted.

    Args:
        name: a name from the table, or ``package.module:Class`` of a class under ``Baseline``.
        given: its parameters; what is not given has its default.

    Raises:
        InputError: for an unknown name, an unknown key or a value that is not allowed.
    """
    found: type[Baseline] = find_class("baseline", name, BASELINES, Baseline)
    return found.parse(given or {}, f"the baseline {name}")


def baseline_module(name: str) -> str:
    """The module of a baseline, which is not imported; raises InputError for an unknown name."""
    return class_path("baseline", name, BASELINES).partition(":")[0]
