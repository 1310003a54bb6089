"""What a comparison says: pure functions of its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evaluation.statistics.intervals import Interval, mean, paired_difference
from registry.gate.gate_config import Decision, GateConfig, Outcome
from registry.gate.guardrails import judge_guardrails
from registry.gate.power import needed_users

if TYPE_CHECKING:
    from registry.gate.compare import Comparison, Paired

SEED = 0
"""Of the resamples behind the bounds."""
VERBS = {"promote": "Promoted", "hold": "Held", "reject": "Rejected"}


@dataclass(frozen=True)
class Findings:
    """Sentences without their full stop, by what they lead to, and the figures of a decision behind them."""

    doubts: tuple[str, ...] = ()
    """Why the numbers cannot be trusted or compared."""
    worse: tuple[str, ...] = ()
    """Why it is worse than the champion."""
    lacks: tuple[str, ...] = ()
    """Why it is not shown to be good enough."""
    merits: tuple[str, ...] = ()
    """What speaks for it."""
    notes: tuple[str, ...] = ()
    """What else was looked at."""
    figures: Mapping[str, Any] = field(default_factory=dict)

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
        """Doubtful numbers decide nothing; a model that is worse is rejected; one that lacks nothing is promoted."""
        if self.doubts:
            return "hold"
        if self.worse:
            return "reject"
        return "hold" if self.lacks else "promote"

    def concluded(self, start: Decision) -> Decision:
        """The decision that follows."""
        reasons = self.doubts + self.worse + self.lacks + self.merits + self.notes
        told = {
            "outcome": self.outcome,
            "reason": f"{VERBS[self.outcome]}: {reasons[0]}.",
            "reasons": tuple(f"{reason[:1].upper()}{reason[1:]}." for reason in reasons),
        }
        return start.model_copy(update={**self.figures, **told})


def judge(comparison: Comparison, metric: str, champion: int, noise: float | None, config: GateConfig) -> Findings:
    """Apply the gate's rule to a comparison.

    Worse: the upper bound of the difference is below zero and the estimate below minus the margin. Not worse: the lower
    bound is above minus the margin, there are as many users as the power calculation asks for, and no guardrail is
    broken. Better: the lower bound is above zero too, and the estimate above the noise between seeds. The bounds are
    the ends of the paired 95 % bootstrap interval over users, each of them one-sided at 2.5 %.

    Args:
        comparison: at least one user.
        metric: the name of the watched metric.
        champion: its version, for the sentences.
        noise: what a difference has to exceed to be no accident of seeds; None where it was not measured.
        config: margins and power.
    """
    watched = comparison.watched
    gap, value = _gap(watched), mean(watched.champion)
    margin, shown = config.margin * value, f"{metric} {interval_words(gap)}"
    figures = {
        "compared_users": len(watched),
        "challenger_value": mean(watched.challenger),
        "champion_value": value,
        "against_champion": gap,
        "margin": margin,
        "noise": noise,
    }
    bounds = _against_bounds(gap, margin, noise, f"champion {champion}", shown)
    rest = _enough(watched, value, config) + _guarded(comparison, config) + _common(comparison, metric)
    return Findings(figures=figures) + bounds + rest


def interval_words(gap: Interval) -> str:
    """A difference with its bounds."""
    return f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"


def _gap(pair: Paired) -> Interval:
    return paired_difference(pair.challenger, pair.champion, SEED)


def _against_bounds(gap: Interval, margin: float, noise: float | None, champion: str, shown: str) -> Findings:
    if gap.high < 0 and gap.mean < -margin:
        return Findings(worse=(f"it is worse than {champion}: {shown}, margin {margin:.4f}",))
    if gap.low <= -margin:
        return Findings(lacks=(f"it may be worse than {champion}: {shown}, margin {margin:.4f}",))
    if noise is not None and gap.low > 0 and gap.mean > noise:
        says = f"it is better than {champion}: {shown}, noise between seeds {noise:.4f}"
        return Findings(merits=(says,), figures={"better": True})
    says = f"it is not worse than {champion}: {shown}, margin {margin:.4f}"
    return Findings(merits=(says,), notes=_unsaid(gap, noise))


def _unsaid(gap: Interval, noise: float | None) -> tuple[str, ...]:
    """Why a model whose lower bound is above zero is not called better."""
    if gap.low <= 0:
        return ()
    if noise is None:
        return ("whether it is better is not said: the noise between five seeds was not measured",)
    return (f"whether it is better is not said: the noise between seeds is {noise:.4f}",)


def _enough(watched: Paired, value: float, config: GateConfig) -> Findings:
    needed = needed_users(watched.difference, value, config)
    if len(watched) >= needed:
        says = f"{len(watched):,} users were compared, and {needed:,} are enough"
        return Findings(notes=(says,), figures={"needed_users": needed})
    says = f"{len(watched):,} users are too few: {needed:,} are needed to find a loss of {config.detectable_loss:.0%}"
    return Findings(lacks=(says,), figures={"needed_users": needed})


def _guarded(comparison: Comparison, config: GateConfig) -> Findings:
    judged = judge_guardrails(comparison.guarded, config.guardrail_margin)
    broken = tuple(guardrail.says for guardrail in judged if not guardrail.passed)
    kept = tuple(guardrail.says for guardrail in judged if guardrail.passed)
    return Findings(lacks=broken, notes=kept, figures={"guardrails": judged})


def _common(comparison: Comparison, metric: str) -> Findings:
    if not len(comparison.common):
        return Findings(notes=("the two have no user and no song in common",), figures={"common_users": 0})
    gap, users = _gap(comparison.common), len(comparison.common)
    says = f"on the {users:,} users and the songs that both know: {metric} {interval_words(gap)}"
    return Findings(notes=(says,), figures={"common_users": users, "on_common": gap})
