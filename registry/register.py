"""Registers a bundle as a version, decides whether it becomes champion, and moves the alias last of all."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.config import flat
from data.errors import InputError
from evaluation.intervals import Interval
from evaluation.record import EvaluationRecord
from registry.manifest import Manifest, read_manifest, verify_bundle
from registry.promotion import COMPARED_FILES, Decision, decide
from registry.store import CHAMPION, RunNumbers, Store, Version

DECISION_TAG = "decision"
DONE_TAG = "decision_done"
MAX_PARAM_LENGTH = 6000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Registered:
    """Where a bundle is registered and what was decided about it."""

    name: str
    version: int
    run_id: str
    uri: str
    bundle_digest: str
    champion: int | None
    """The champion after the registration."""
    decision: Decision

    @property
    def is_champion(self) -> bool:
        """Whether this version is the champion now."""
        return self.champion == self.version


def register(
    bundle: Path, name: str = "songgraph", uri: str | None = None, params: Mapping[str, Any] | None = None
) -> Registered:
    """Register a bundle and promote it where the rule says so.

    The same bundle is registered once under a name: a retry, or a run after a crash, finds the version, completes
    what is missing and returns it.

    Args:
        bundle: a folder written by ``registry.bundle.assemble_bundle``.
        name: the registered model's name; models of different names do not compete.
        uri: the registry's address, see ``registry.location.resolve_uri``.
        params: what to show beside the configs in MLflow's UI; nested tables get dotted names.

    Raises:
        InputError: the bundle is refused, or the registry cannot be reached or read.
    """
    manifest = verify_bundle(bundle)
    store = Store(uri, create=True)
    with store.locked():
        version = _ensure_version(store, name, bundle, manifest, params or {})
        decision = decision_of(version) or _decide(store, version, bundle)
        champion = _finish(store, version, decision)
    return Registered(name, version.version, version.run_id, store.address, manifest.digest, champion, decision)


def decision_of(version: Version) -> Decision | None:
    """The decision that was recorded on a version."""
    text = version.tags.get(DECISION_TAG)
    return Decision.model_validate_json(text) if text else None


def run_numbers(bundle: Path, manifest: Manifest, params: Mapping[str, Any]) -> RunNumbers:
    """What MLflow shows of a bundle: configs, history and summary, under names that it accepts."""
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    record = EvaluationRecord.read(bundle / "metrics.json")
    facts = manifest.facts
    tags = {
        "trainer": facts.trainer,
        "source": facts.source,
        "split_digest": facts.split_digest,
        "in_sample": str(facts.in_sample).lower(),
        "metric": record.watched,
        "metric_interval": json.dumps(vars(record.metrics[record.watched])),
        "metric_version": str(record.metric_version),
    }
    shown = {key: str(value)[:MAX_PARAM_LENGTH] for key, value in flat({**config, **params}).items()}
    history = json.loads((bundle / "history.json").read_text(encoding="utf-8"))
    return RunNumbers(shown, [*_by_epoch(history), *_summary(record)], tags)


def _ensure_version(store: Store, name: str, bundle: Path, manifest: Manifest, params: Mapping[str, Any]) -> Version:
    version = store.find(name, manifest.digest)
    if version is None:
        return store.create_version(name, bundle, manifest, run_numbers(bundle, manifest, params))
    store.repair(version, bundle)
    return version


def _decide(store: Store, version: Version, bundle: Path) -> Decision:
    number = store.aliases(version.name).get(CHAMPION)
    decision = decide(bundle) if number is None else _decide_against(store, version.name, number, bundle)
    store.note(version, DECISION_TAG, decision.model_dump_json())
    return decision


def _decide_against(store: Store, name: str, number: int, bundle: Path) -> Decision:
    try:
        champion = store.get(name, number)
        with store.files(champion, COMPARED_FILES) as champion_bundle:
            champion.check(read_manifest(champion_bundle))
            return decide(bundle, number, champion_bundle)
    except InputError as error:
        logger.warning("Champion %s of %s cannot be compared with: %s", number, name, error)
        alone = decide(bundle)
        reason = f"Held: champion {number} cannot be compared with. {error}"
        return alone.model_copy(update={"outcome": "hold", "reason": reason, "champion": number})


def _finish(store: Store, version: Version, decision: Decision) -> int | None:
    """Move the alias if that was decided and nobody has moved it since; return the champion.

    A decision is carried out once: who moves the alias back by hand does not find it moved again by a later run.
    """
    champion = store.aliases(version.name).get(CHAMPION)
    if decision.outcome != "promote" or DONE_TAG in version.tags:
        return champion
    if champion == decision.champion:
        store.point(CHAMPION, version)
        champion = version.version
    store.note(version, DONE_TAG, "true")
    return champion


def _by_epoch(history: list[dict[str, Any]]) -> list[tuple[str, float, int]]:
    return [
        (_metric_name(name), float(value), int(record["epoch"]))
        for record in history
        for name, value in record.items()
        if name != "epoch" and isinstance(value, int | float) and math.isfinite(value)
    ]


def _summary(record: EvaluationRecord) -> list[tuple[str, float, int]]:
    prefix = "" if record.in_sample else f"{record.part}_"
    rows = {f"{prefix}{name}": interval for name, interval in record.metrics.items()}
    for baseline, metrics in record.baselines.items():
        rows |= {f"{baseline}_{prefix}{name}": interval for name, interval in metrics.items()}
    return [entry for name, interval in rows.items() for entry in _ends(_metric_name(name), interval)]


def _ends(name: str, interval: Interval) -> list[tuple[str, float, int]]:
    return [(name, interval.mean, 0), (f"{name}_low", interval.low, 0), (f"{name}_high", interval.high, 0)]


def _metric_name(name: str) -> str:
    """MLflow allows no @ in names."""
    return name.replace("@", "_at_")
