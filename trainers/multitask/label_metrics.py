"""Metrics of a task's predictions, on pairs that nothing has learned from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BINS = 10
STRENGTHS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
"""Values that are tried for c, the number of listeners that the overall mean counts for."""


class Labelled(NamedTuple):
    """Pairs with targets: users (P,), items (P,), which are songs or artists, and targets (P,) in [0, 1]."""

    users: Ints
    items: Ints
    targets: Floats


def auc(predicted: Floats, target: Floats) -> float | None:
    """Return the area under the ROC curve for targets (P,) above 1/2 against the others; ties count half.

    The Mann-Whitney statistic divided by the number of its comparisons (Hanley and McNeil, Radiology 1982). None if all
    targets are on one side.
    """
    positive = target > 0.5
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return None
    rank_sum = float(rankdata(predicted)[positive].sum())
    return (rank_sum - ones * (ones + 1) / 2) / (ones * zeros)


def calibration_error(predicted: Floats, target: Floats) -> float:
    """Return the expected calibration error of predictions (P,) in [0, 1] for targets (P,).

    Predictions are put into 10 bins of equal width; each bin counts the absolute difference between its mean prediction
    and its mean target, weighted by its share of the pairs (Naeini, Cooper and Hauskrecht, AAAI 2015). With few pairs
    chance alone makes it some hundredths.
    """
    bins = np.minimum((predicted * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, predicted - target, minlength=BINS)
    return float(np.abs(gaps).sum() / len(target))


def explained(predicted: Floats, target: Floats, reference: Floats) -> float | None:
    """Return 1 - squared error of the predictions / squared error of a reference: R2 against that reference.

    All are (P,). A result above zero is better than the reference. None if the reference makes no error.
    """
    error = float(np.square(reference - target).sum())
    return 1 - float(np.square(predicted - target).sum()) / error if error else None


def task_metrics(predicted: Floats, labelled: Labelled, reference: ItemMeans | None) -> dict[str, float]:
    """Return ``auc``, ``ece`` (see ``calibration_error``) and, if there is a reference, ``r2`` against it.

    A metric that the pairs do not define is left out.

    Args:
        predicted: (P,) in [0, 1], for the pairs of ``labelled``.
    """
    found = {"auc": auc(predicted, labelled.targets), "ece": calibration_error(predicted, labelled.targets)}
    if reference is not None:
        found["r2"] = explained(predicted, labelled.targets, reference(labelled.items))
    return {name: value for name, value in found.items() if value is not None}


class ItemMeans:
    """Predicts the mean target of each item, shrunk towards the mean of all: the baseline of a task.

        m_i = (sum of the targets of i + c mean) / (n_i + c)

    c is the one of ``STRENGTHS`` with the least squared error if each pair is predicted from the others. With c = 0 an
    item of one listener is predicted by that listener alone, which is often worse than the mean of all.

    Args:
        known: pairs to learn from; at least one.
        num_items: number of items.
    """

    def __init__(self, known: Labelled, num_items: int) -> None:
        self.overall = float(known.targets.mean())
        self.count = np.bincount(known.items, minlength=num_items)
        self.total = np.bincount(known.items, known.targets, minlength=num_items).astype(np.float64)
        self.strength = min(STRENGTHS, key=lambda strength: self._error_without_own(known, strength))

    def __call__(self, items: Ints) -> Floats:
        """Return the means of items (P,): (P,)."""
        return self._means(self.total[items], self.count[items], self.strength)

    def _error_without_own(self, known: Labelled, strength: float) -> float:
        total, count = self.total[known.items] - known.targets, self.count[known.items] - 1
        return float(np.square(self._means(total, count, strength) - known.targets).sum())

    def _means(self, total: Floats, count: npt.NDArray[Any], strength: float) -> Floats:
        means: Floats = (total + strength * self.overall) / (count + strength)
        return means
