"""Guardrails: coverage, tail songs, cold users and diversity must not pay for a better recall."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtr, stdtrit

from evaluation.statistics.intervals import Interval
from evaluation.statistics.significance import holm
from registry.gate.gate_config import Guardrail
from registry.gate.power import LEAST_USERS, LEVEL

if TYPE_CHECKING:
    from registry.gate.compare import Paired


def check_guardrails(guarded: Mapping[str, Paired], margin: float) -> tuple[Guardrail, ...]:
    """Test for each quantity if more than a share of the champion's value is lost.

    One-sided paired t tests of "no more than the margin is lost". Their p-values are corrected together (Holm, 1979),
    so that the chance of stopping a model that lost nothing is at most 2.5 %, for any number of guardrails. The bounds
    that are shown have Bonferroni's level, at which Holm's first step decides.

    Args:
        guarded: name to the quantity of both models on the same users; one with fewer than 30 users is skipped.
        margin: the share.
    """
    measured = {name: pair for name, pair in guarded.items() if len(pair) >= LEAST_USERS}
    p_values = dict(zip(measured, holm([_p_value(pair, margin) for pair in measured.values()]), strict=True))
    level = LEVEL / max(1, len(measured))
    return tuple(
        _tested(name, pair, margin, level, p_values[name]) if name in measured else _skipped(name, pair)
        for name, pair in guarded.items()
    )


def _p_value(pair: Paired, margin: float) -> float:
    """Return the one-sided p-value of H0: the challenger loses exactly the margin."""
    beyond = float(pair.difference.mean()) + margin * float(pair.champion.mean())
    error = _standard_error(pair)
    if error == 0:
        return 0.0 if beyond < 0 else 1.0
    return float(stdtr(len(pair) - 1, beyond / error))


def _tested(name: str, pair: Paired, margin: float, level: float, p: float) -> Guardrail:
    challenger, champion = float(pair.challenger.mean()), float(pair.champion.mean())
    reach = float(stdtrit(len(pair) - 1, 1 - level)) * _standard_error(pair)
    gap = challenger - champion
    passed = p > LEVEL
    verdict = "" if passed else f", clearly more than {margin:.0%} lost (p {p:.1g})"
    return Guardrail(
        name=name,
        users=len(pair),
        challenger=challenger,
        champion=champion,
        difference=Interval(gap, gap - reach, gap + reach),
        p=p,
        passed=passed,
        says=f"{name} {challenger:.4f} against {champion:.4f}{verdict}",
    )


def _skipped(name: str, pair: Paired) -> Guardrail:
    return Guardrail(name=name, users=len(pair), says=f"{name} skipped: {len(pair)} users have it, too few to test")


def _standard_error(pair: Paired) -> float:
    return float(np.std(pair.difference, ddof=1)) / len(pair) ** 0.5
