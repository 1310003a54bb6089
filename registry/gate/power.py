"""Computes the users that a comparison needs, and the noise between seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from registry.gate.gate_config import GateConfig

LEVEL = 0.025
"""Level of every one-sided test: the chance of a false claim."""
LEAST_USERS = 30
"""With fewer users neither the spread between users nor an interval can be trusted."""
LEAST_SEEDS = 5
"""Seeds from which the noise between them is estimated."""


def needed_users(difference: npt.NDArray[np.float64], champion_value: float, config: GateConfig) -> int:
    """Return the number of users with which a loss of ``detectable_loss`` is rejected with probability ``power``.

    A loss is rejected when its upper bound is below zero and the estimate below minus the margin. With the standard
    error s / sqrt(n), a true loss L and a margin M, the first has the wanted power for
    n >= ((z_level + z_power) s / L)^2 and the second for n >= (z_power s / (L - M))^2; the greater counts.
    Chow, Shao and Wang, "Sample size calculations in clinical research" (2008), 3.1 and 3.2.

    Args:
        difference: (N,) challenger minus champion of each user; its standard deviation is s.
        champion_value: the losses are shares of it.
        config: shares and power.
    """
    if len(difference) < LEAST_USERS or champion_value <= 0:
        return LEAST_USERS
    z_level, z_power = NormalDist().inv_cdf(1 - LEVEL), NormalDist().inv_cdf(config.power)
    spread = float(np.std(difference, ddof=1)) / champion_value
    by_bound = (z_level + z_power) * spread / config.detectable_loss
    by_margin = z_power * spread / (config.detectable_loss - config.margin)
    return max(LEAST_USERS, math.ceil(max(by_bound, by_margin) ** 2))


def noise_between_seeds(seeds: Mapping[str, Any], metric: str) -> float | None:
    """Return the largest difference between two models that their seeds alone explain; None without five seeds.

    The difference of two models of one configuration has the variance 2 s^2, with s the standard deviation between
    seeds; with s estimated from n seeds, the difference over sqrt(2) s follows Student's t with n - 1 degrees of
    freedom. So chance exceeds t(0.975, n - 1) sqrt(2) s in one case of forty.

    Args:
        seeds: contents of ``seeds.json``.
        metric: the watched metric.
    """
    number, spread = len(seeds.get("seeds", ())), seeds.get("metrics", {}).get(metric, {}).get("sd")
    if number < LEAST_SEEDS or spread is None:
        return None
    return float(stdtrit(number - 1, 1 - LEVEL)) * math.sqrt(2) * float(spread)
