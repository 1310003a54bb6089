"""The top of the report: what the model is, how good, against what, and what the gate decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.record import EvaluationRecord
from evaluation.report.sources import Sources, read_json
from evaluation.report.words import as_interval, count, decimal, ends, gap, gap_kind, percent

OUTCOMES = {"promote": ("Promoted", "good"), "hold": ("Held", "held"), "reject": ("Rejected", "bad")}


@dataclass(frozen=True)
class Tile:
    """A number that one should see first."""

    label: str
    value: str
    detail: str
    kind: str = ""


@dataclass(frozen=True)
class Headline:
    """What is above everything else."""

    title: str
    what: str
    sentence: str
    tiles: tuple[Tile, ...]
    badge: str
    badge_kind: str
    decision: str


def headline(sources: Sources) -> Headline:
    """The headline of a run."""
    record, decision, registered = sources.record(), sources.decision(), sources.registered()
    badge, kind = OUTCOMES.get(decision.get("outcome", ""), ("Not registered", "held"))
    if registered and not decision:
        badge = "Registered"
    version = f", version {registered['version']}" if registered else ""
    return Headline(
        title=f"{sources.name}{version}",
        what=_what(sources),
        sentence=_sentence(record),
        tiles=(_value(record), _best(record), _champion(record, decision)),
        badge=badge,
        badge_kind=kind,
        decision=decision.get("reason") or registered.get("decision") or "This run registered no version.",
    )


def model_name(sources: Sources) -> str:
    """Name of the model's architecture, for example "gat"."""
    return str(read_json(sources.model / "config.json", {}).get("model_config", {}).get("architecture", "model"))


def ranked_baselines(record: EvaluationRecord) -> list[str]:
    """Names of the baselines that have the watched metric, the best first."""
    measured = {
        name: metrics[record.watched] for name, metrics in record.baselines.items() if record.watched in metrics
    }
    return sorted(measured, key=lambda name: -measured[name].mean)


def _what(sources: Sources) -> str:
    config = read_json(sources.model / "config.json", {})
    profile = read_json(sources.graph / "profile.json", {})
    log = "a made-up log" if sources.synthetic else "a log"
    size = f" of {count(profile['pairs'])} user-song pairs" if profile else ""
    return f"Model {model_name(sources)}, trained by {config.get('trainer', 'a trainer')} on {log}{size}"


def _sentence(record: EvaluationRecord) -> str:
    share, users = percent(record.metrics[record.watched].mean), count(record.num_users)
    songs = f"the model's first {record.k}, with all {count(record.num_songs)} songs ranked"
    if record.in_sample:
        return (
            f"In-sample: of the songs that each of {users} users listened to, {share} are among {songs}. It was "
            "trained on all of them, so this says nothing about new songs."
        )
    return f"Of the songs held out from each of {users} users, {share} are among {songs}.{_against_best(record)}"


def _against_best(record: EvaluationRecord) -> str:
    """One more sentence, where a baseline was compared with."""
    best = next(iter(ranked_baselines(record)), "")
    difference = record.differences.get(best, {}).get(record.watched)
    if difference is None:
        return ""
    if difference.low > 0 or difference.high < 0:
        return f" It is {'better' if difference.low > 0 else 'worse'} than the best baseline beside it, {best}."
    return f" No difference to the best baseline beside it, {best}, is shown."


def _value(record: EvaluationRecord) -> Tile:
    value = record.metrics[record.watched]
    return Tile(record.watched, decimal(value.mean), f"{ends(value)}, 95 % interval")


def _best(record: EvaluationRecord) -> Tile:
    ranked = ranked_baselines(record)
    if not ranked:
        return Tile("Best baseline", "none", "no baseline was measured")
    value, difference = (
        beside.get(ranked[0], {}).get(record.watched) for beside in (record.baselines, record.differences)
    )
    against = f"model {gap(difference)}" if difference else "not compared by user"
    kind = gap_kind(difference) if difference else ""
    return Tile(f"Best baseline: {ranked[0]}", decimal(value.mean) if value else "", against, kind)


def _champion(record: EvaluationRecord, decision: Mapping[str, Any]) -> Tile:
    champion, difference = decision.get("champion"), as_interval(decision.get("against_champion"))
    if champion is None:
        return Tile("Champion before", "none", "there was none to compare with")
    if difference is None:
        return Tile(f"Champion: version {champion}", "not compared", "the decision below says why")
    value = decision.get("champion_value")
    users = decision.get("compared_users") or decision.get("common_users")
    shown = decimal(value) if value is not None else gap(difference).split(" ")[0]
    return Tile(
        f"Champion: version {champion}", shown, f"model {gap(difference)}, {count(users)} users", gap_kind(difference)
    )
