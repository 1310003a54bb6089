"""The top of the report: the model, its quality, the comparison with others, and the gate's decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.record import EvaluationRecord
from evaluation.report.number_format import as_interval, count, decimal, ends, gap, gap_kind, percent
from evaluation.report.sources import Sources, read_json

OUTCOMES = {"promote": ("Promoted", "good"), "hold": ("Held", "held"), "reject": ("Rejected", "bad")}


@dataclass(frozen=True)
class Tile:
    """An important number with its label."""

    label: str
    value: str
    detail: str
    kind: str = ""


@dataclass(frozen=True)
class Headline:
    """The texts and tiles at the top of the report."""

    title: str
    model: str
    sentence: str
    tiles: tuple[Tile, ...]
    badge: str
    badge_kind: str
    decision: str


def headline(sources: Sources) -> Headline:
    """Create the headline of a run."""
    record, decision, registered = sources.record(), sources.decision(), sources.registered()
    value = record.metrics[record.watched]
    badge, kind = OUTCOMES.get(decision.get("outcome", ""), ("Not registered", "held"))
    if registered and not decision:
        badge = "Registered"
    version = f", version {registered['version']}" if registered else ""
    return Headline(
        title=f"{sources.name}{version}",
        model=_describe_model(sources),
        sentence=_sentence(record),
        tiles=(
            Tile(record.watched, decimal(value.mean), f"{ends(value)}, 95 % interval"),
            _baseline_tile(record),
            _champion_tile(decision),
        ),
        badge=badge,
        badge_kind=kind,
        decision=decision.get("reason") or registered.get("decision") or "This run registered no version.",
    )


def model_name(sources: Sources) -> str:
    """Return the name of the model's architecture, for example "gat"."""
    return str(read_json(sources.model / "config.json", {}).get("model_config", {}).get("architecture", "model"))


def ranked_baselines(record: EvaluationRecord) -> list[str]:
    """Return the names of the baselines that have the watched metric, the best first."""
    measured = {
        name: metrics[record.watched] for name, metrics in record.baselines.items() if record.watched in metrics
    }
    return sorted(measured, key=lambda name: -measured[name].mean)


def _describe_model(sources: Sources) -> str:
    config = read_json(sources.model / "config.json", {})
    profile = read_json(sources.graph / "profile.json", {})
    log = "a made-up log" if sources.synthetic else "a log"
    size = f" of {count(profile['pairs'])} user-song pairs" if profile else ""
    return f"Model {model_name(sources)}, trained by {config.get('trainer', 'a trainer')} on {log}{size}"


def _sentence(record: EvaluationRecord) -> str:
    share = percent(record.metrics[record.watched].mean)
    extent = f"{count(record.num_users)} users, all {count(record.num_songs)} songs ranked"
    if record.in_sample:
        return (
            f"In-sample: on average, {share} of the songs that a user listened to are among the model's first "
            f"{record.k} ({extent}). The model was trained on all of them, so this says nothing about new songs."
        )
    found = f"On average, {share} of a user's held-out songs are among the model's first {record.k} ({extent})."
    best = next(iter(ranked_baselines(record)), "")
    difference = record.differences.get(best, {}).get(record.watched)
    if difference is None:
        return found
    if difference.low > 0 or difference.high < 0:
        return f"{found} The model is {'better' if difference.low > 0 else 'worse'} than the best baseline, {best}."
    return f"{found} The data show no difference to the best baseline, {best}."


def _baseline_tile(record: EvaluationRecord) -> Tile:
    ranked = ranked_baselines(record)
    if not ranked:
        return Tile("Best baseline", "none", "no baseline was measured")
    best = ranked[0]
    value, difference = record.baselines[best][record.watched], record.differences.get(best, {}).get(record.watched)
    against = f"model {gap(difference)}" if difference else "not compared by user"
    return Tile(f"Best baseline: {best}", decimal(value.mean), against, gap_kind(difference) if difference else "")


def _champion_tile(decision: Mapping[str, Any]) -> Tile:
    champion, difference = decision.get("champion"), as_interval(decision.get("against_champion"))
    if champion is None:
        return Tile("Champion before", "none", "there was no champion to compare with")
    if difference is None:
        return Tile(f"Champion: version {champion}", "not compared", "the decision below says why")
    value = decision.get("champion_value")
    users = decision.get("compared_users") or decision.get("common_users")
    shown = decimal(value) if value is not None else gap(difference).split(" ")[0]
    return Tile(
        f"Champion: version {champion}", shown, f"model {gap(difference)}, {count(users)} users", gap_kind(difference)
    )
