"""Whether a new model becomes champion: the interim rule, until the gate that asks for users neither has seen."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from data.config import Config
from evaluation.intervals import Interval, paired_difference
from evaluation.record import EvaluationRecord, paired_columns, read_per_user
from registry.manifest import Facts, Manifest, read_manifest, verify_files

BASELINE = "popularity"
COMPARED_FILES = ("manifest.json", "metrics.json", "per_user.parquet")
"""The files of a bundle that a decision reads."""

SEED = 0


class Decision(Config):
    """What was decided about a version, from which numbers, and why; it is stored with the version."""

    outcome: Literal["promote", "hold"]
    """Whether the version becomes champion."""
    reason: str
    """Why, in a sentence."""
    metric: str
    """The metric that decided."""
    users: int
    """Users on whom the model was measured."""
    against_popularity: Interval | None = None
    """Model minus popularity, paired by user."""
    champion: int | None = None
    """The champion's version at the time; none where there was none."""
    common_users: int | None = None
    """Users on whom model and champion were both measured, where they were compared."""
    against_champion: Interval | None = None
    """Model minus champion on those users, paired."""


def decide(bundle: Path, champion: int | None = None, champion_bundle: Path | None = None) -> Decision:
    """Compare a bundle with popularity and with the champion.

    It is promoted when the paired 95 % interval of its watched metric against popularity lies above zero and, where
    the champion stands on the same split, its estimate on the same users is not below the champion's. In-sample
    numbers never promote, and a model of a made-up log never replaces one of a real log.

    Args:
        bundle: a verified bundle.
        champion: the champion's version, if there is one.
        champion_bundle: a folder with at least ``COMPARED_FILES`` of its bundle; they are verified here.
    """
    facts, record = read_manifest(bundle).facts, EvaluationRecord.read(bundle / "metrics.json")
    start = Decision(outcome="hold", reason="", metric=record.watched, users=record.num_users, champion=champion)
    if facts.in_sample:
        return _hold(start, "its numbers are in-sample and say nothing about new listens")
    if record.watched not in record.baselines.get(BASELINE, {}):
        return _hold(start, "it was not measured beside popularity")
    beaten = _against_popularity(bundle, record)
    start = start.model_copy(update={"against_popularity": beaten})
    if beaten.low <= 0:
        return _hold(start, f"it does not clearly beat popularity: {_words(record.watched, beaten)}")
    if champion is None or champion_bundle is None:
        return _promote(start, f"it beats popularity ({_words(record.watched, beaten)}) and there is no champion")
    return _against_champion(start, bundle, facts, record, champion_bundle)


def _against_champion(
    start: Decision, bundle: Path, facts: Facts, record: EvaluationRecord, champion_bundle: Path
) -> Decision:
    rival, other = _read_champion(champion_bundle)
    if facts.source == "synthetic" and rival.facts.source == "log":
        return _hold(start, f"it learned from a made-up log and champion {start.champion} from a real one")
    if facts.split_digest != rival.facts.split_digest:
        return _promote(start, f"it beats popularity, and champion {start.champion} stands on another split")
    if record.metric_version != other.metric_version or record.watched not in other.metrics:
        return _hold(
            start,
            f"champion {start.champion} was not measured by the same {record.watched}, so they cannot be compared",
        )
    ours, theirs = _columns(bundle, champion_bundle, record.watched)
    if not len(ours):
        return _hold(start, f"it and champion {start.champion} were measured on no common user")
    gap = paired_difference(ours, theirs, SEED)
    compared = start.model_copy(update={"common_users": len(ours), "against_champion": gap})
    if gap.mean < 0:
        return _hold(compared, f"it is worse than champion {start.champion}: {_words(record.watched, gap)}")
    return _promote(
        compared, f"it beats popularity and is not worse than champion {start.champion}: {_words(record.watched, gap)}"
    )


def _read_champion(folder: Path) -> tuple[Manifest, EvaluationRecord]:
    manifest = read_manifest(folder)
    verify_files(folder, manifest, [name for name in COMPARED_FILES if name in manifest.files])
    return manifest, EvaluationRecord.read(folder / "metrics.json")


def _against_popularity(bundle: Path, record: EvaluationRecord) -> Interval:
    table = bundle / "per_user.parquet"
    model, baseline = (read_per_user(table, f"{prefix}{record.watched}")[1] for prefix in ("", f"{BASELINE} "))
    return paired_difference(model, baseline, SEED)


def _columns(bundle: Path, champion_bundle: Path, metric: str) -> tuple[np.ndarray, np.ndarray]:
    return paired_columns(bundle / "per_user.parquet", champion_bundle / "per_user.parquet", metric)


def _words(metric: str, gap: Interval) -> str:
    return f"{metric} {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"


def _hold(start: Decision, why: str) -> Decision:
    return start.model_copy(update={"outcome": "hold", "reason": f"Held: {why}."})


def _promote(start: Decision, why: str) -> Decision:
    return start.model_copy(update={"outcome": "promote", "reason": f"Promoted: {why}."})
