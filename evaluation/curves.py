"""Compute recall and NDCG against the length of the list, for a figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evaluation.evaluation import Evaluation
from evaluation.metrics.accuracy import hits_and_sizes, ndcg, recall
from evaluation.statistics.intervals import SAMPLES, bootstrap_means

LENGTHS = (1, 2, 5, 10, 15, 20, 30, 40, 50, 75, 100)
FORMULAS = {"recall": recall, "ndcg": ndcg}


def curves(evaluation: Evaluation, samples: int = SAMPLES) -> dict[str, Any]:
    """Compute recall and NDCG at ``LENGTHS`` and at the measured ks, up to the length of the lists.

    Returns:
        plain JSON: ``ks``, and under ``model`` one [mean, low, high] per k for each metric. The interval is the 95 %
        bootstrap interval over users, on the same resamples as the evaluation.
    """
    longest = evaluation.ranked.items.shape[1]
    ks = sorted({k for k in (*LENGTHS, *evaluation.ks) if k <= longest})
    hits, sizes = hits_and_sizes(evaluation.ranked.items, evaluation.relevant, ks[-1])
    columns = {f"{name} {k}": formula(hits, sizes, k).numpy() for name, formula in FORMULAS.items() for k in ks}
    found = bootstrap_means(columns, evaluation.seed, samples)
    rows = {name: [found[f"{name} {k}"] for k in ks] for name in FORMULAS}
    model = {name: [[point.mean, point.low, point.high] for point in points] for name, points in rows.items()}
    return {"ks": ks, "model": model}


def write_curves(path: Path, found: dict[str, Any]) -> None:
    """Write the curves as JSON; the same content gives the same bytes."""
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
