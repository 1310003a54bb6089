"""The promotion policy: from the numbers of a comparison to findings, and from findings to a decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evaluation.statistics.intervals import Interval, mean, paired_difference
from registry.gate.gate_config import Decision, GateConfig, Outcome
from registry.gate.guardrails import check_guardrails
from registry.gate.power import needed_users

if TYPE_CHECKING:
    from registry.gate.compare import Comparison, Paired

SEED = 0
"""Seed of the resamples behind the bounds."""
VERBS = {"promote": "Promoted", "hold": "Held", "reject": "Rejected"}


@dataclass(frozen=True)
class Findings:
    """Findings about a challenger: sentences without their full stop, and the decision's fields behind them."""

    doubts: tuple[str, ...] = ()
    """Reasons not to trust or not to compare the numbers."""
    worse: tuple[str, ...] = ()
    """Reasons to call it worse than the champion."""
    lacks: tuple[str, ...] = ()
    """Reasons why it is not shown to be good enough."""
    merits: tuple[str, ...] = ()
    """Reasons why it is good enough."""
    notes: tuple[str, ...] = ()
    """Everything else that was found."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``Decision`` with their values."""

    def __add__(self, other: Findings) -> Findings:
        return Findings(
            self.doubts + other.doubts,
            self.worse + other.worse,
            self.lacks + other.lacks,
            self.merits + other.merits,
            self.notes + other.notes,
            {**self.figures, **other.figures},
        )

    @property
    def outcome(self) -> Outcome:
        """Return "hold" with doubts, else "reject" if it is worse, else "promote" if it lacks nothing."""
        if self.doubts:
            return "hold"
        if self.worse:
            return "reject"
        return "hold" if self.lacks else "promote"

    def decide(self, start: Decision) -> Decision:
        """Return the decision that follows; ``start`` has the fields that are known before any finding."""
        reasons = self.doubts + self.worse + self.lacks + self.merits + self.notes
        conclusion = {
            "outcome": self.outcome,
            "reason": f"{VERBS[self.outcome]}: {reasons[0]}.",
            "reasons": tuple(f"{reason[:1].upper()}{reason[1:]}." for reason in reasons),
        }
        return start.model_copy(update={**self.figures, **conclusion})


def apply_policy(
    comparison: Comparison, metric: str, champion: int, noise: float | None, config: GateConfig
) -> Findings:
    """Apply the promotion policy to a comparison.

    Worse: the upper bound of the difference is below zero and the estimate below minus the margin. Not worse: the lower
    bound is above minus the margin, there are as many users as the power calculation asks for, and no guardrail is
    broken. Better: the lower bound is above zero too, and the estimate above the noise between seeds. The bounds are
    the ends of the paired 95 % bootstrap interval over users, each of them one-sided at 2.5 %.

    Args:
        comparison: at least one user.
        metric: the name of the watched metric.
        champion: its version, for the sentences.
        noise: the largest difference that seeds alone explain; None if it was not measured.
        config: margins and power.
    """
    watched = comparison.watched
    gap, value = _gap(watched), mean(watched.champion)
    margin = config.margin * value
    figures = {
        "compared_users": len(watched),
        "challenger_value": mean(watched.challenger),
        "champion_value": value,
        "against_champion": gap,
        "margin": margin,
        "noise": noise,
    }
    findings = Findings(figures=figures) + _difference(gap, margin, noise, champion, metric)
    return (
        findings + _enough_users(watched, value, config) + _guardrails(comparison, config) + _common(comparison, metric)
    )


def interval_words(gap: Interval) -> str:
    """Return a difference with its bounds."""
    return f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"


def _gap(pair: Paired) -> Interval:
    return paired_difference(pair.challenger, pair.champion, SEED)


def _difference(gap: Interval, margin: float, noise: float | None, champion: int, metric: str) -> Findings:
    rival, shown = f"champion {champion}", f"{metric} {interval_words(gap)}"
    if gap.high < 0 and gap.mean < -margin:
        return Findings(worse=(f"it is worse than {rival}: {shown}, margin {margin:.4f}",))
    if gap.low <= -margin:
        return Findings(lacks=(f"it may be worse than {rival}: {shown}, margin {margin:.4f}",))
    if noise is not None and gap.low > 0 and gap.mean > noise:
        merit = f"it is better than {rival}: {shown}, noise between seeds {noise:.4f}"
        return Findings(merits=(merit,), figures={"better": True})
    merit = f"it is not worse than {rival}: {shown}, margin {margin:.4f}"
    if gap.low <= 0:
        return Findings(merits=(merit,))
    measured = "the noise between five seeds was not measured" if noise is None else f"the noise is {noise:.4f}"
    return Findings(merits=(merit,), notes=(f"it is not called better: {measured}",))


def _enough_users(watched: Paired, value: float, config: GateConfig) -> Findings:
    needed = needed_users(watched.difference, value, config)
    if len(watched) >= needed:
        note = f"{len(watched):,} users were compared, and {needed:,} are enough"
        return Findings(notes=(note,), figures={"needed_users": needed})
    lack = f"{len(watched):,} users are too few: {needed:,} are needed to find a loss of {config.detectable_loss:.0%}"
    return Findings(lacks=(lack,), figures={"needed_users": needed})


def _guardrails(comparison: Comparison, config: GateConfig) -> Findings:
    checked = check_guardrails(comparison.guarded, config.guardrail_margin)
    broken = tuple(guardrail.says for guardrail in checked if not guardrail.passed)
    kept = tuple(guardrail.says for guardrail in checked if guardrail.passed)
    return Findings(lacks=broken, notes=kept, figures={"guardrails": checked})


def _common(comparison: Comparison, metric: str) -> Findings:
    if not len(comparison.common):
        return Findings(notes=("the two have no user and no song in common",), figures={"common_users": 0})
    gap, users = _gap(comparison.common), len(comparison.common)
    note = f"on the {users:,} users and the songs that both know: {metric} {interval_words(gap)}"
    return Findings(notes=(note,), figures={"common_users": users, "on_common": gap})
