"""Confidence of a listen: how strongly a user's plays of a song suggest that the user likes it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import Field

from data.config import Config

Floats = npt.NDArray[np.float64]


class WeightConfig(Config):
    """How fast old plays lose weight."""

    half_life_days: float = Field(default=180.0, gt=0)
    """Number of days after which a play counts half; with ``inf`` old plays keep their full weight."""


def listen_weight(
    plays: npt.ArrayLike,
    completion: npt.ArrayLike,
    age_days: npt.ArrayLike,
    half_life_days: float,
    starts: npt.NDArray[np.integer] | None = None,
) -> Floats:
    """Return the confidence of user-song pairs, 1.0 for one complete play today.

    For the rows ``r`` of a pair::

        weight = log2(1 + sum_r plays_r * completion_r * 2 ** (-age_r / half_life))

    The logarithm of a scaled count is the second confidence function of Hu, Koren and Volinsky, "Collaborative
    Filtering for Implicit Feedback Datasets" (ICDM 2008, section 6), here with base 2, so that one play counts 1. We
    add two factors: the share of the song that was heard, and a half-life, which is the exponential time weighting of
    Ding and Li, "Time Weight Collaborative Filtering" (CIKM 2005, f(t) = e^(-t ln 2 / T0)).

    Args:
        plays: (R,) number of plays, at least 0.
        completion: (R,) mean share of the song that was heard, 0 to 1; NaN (not known) counts as complete.
        age_days: (R,) days between the listen and the reference day, at least 0.
        half_life_days: number of days after which a play counts half.
        starts: (P,) first row of each pair; the rows of a pair are adjacent. None: every row is its own pair.

    Returns:
        (P,) float64, at least 0.
    """
    heard = np.nan_to_num(np.asarray(completion, dtype=np.float64), nan=1.0)
    fading = np.exp2(-np.asarray(age_days, dtype=np.float64) / half_life_days)
    evidence = np.asarray(plays, dtype=np.float64) * heard * fading  # (R,)
    if starts is not None:
        evidence = np.add.reduceat(evidence, starts) if len(starts) else np.zeros(0)  # (P,)
    return np.log2(1.0 + evidence)
