"""Registers a bundle as a version, asks the gate about it, and carries the decision out, with its record."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data.config import flat
from data.errors import InputError
from evaluation.record import EvaluationRecord
from registry.audit_log import (
    DECISION_TAG,
    MAX_CHARACTERS,
    Change,
    carry_out,
    decision_of,
    earlier_decision,
    reconcile,
    whoami,
)
from registry.backend.client import CHAMPION, RegistryClient, RunNumbers
from registry.backend.lock import Lease, locked
from registry.backend.version import DIGEST_TAG, Version
from registry.bundle.manifest import RESULTS, Manifest, read_manifest, verify_bundle
from registry.gate.decide import COMPARED_FILES, DEFAULTS, decide
from registry.gate.gate_config import Decision, GateConfig

MAX_PARAM_LENGTH = 6000
RECENT_VERSIONS = 5
PROFILE = "profile.json"

__all__ = ["Registered", "attach", "decision_of", "register", "run_numbers"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Registered:
    """The version of a registered bundle, and the decision about it."""

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
        """Return if this version is the champion now."""
        return self.champion == self.version


def register(
    bundle: Path,
    name: str = "songgraph",
    uri: str | None = None,
    params: Mapping[str, Any] | None = None,
    gate: GateConfig | None = None,
) -> Registered:
    """Register a bundle and promote it if the gate decides so.

    The same bundle is registered once under a name, and decided about once: a retry, or a run after a crash, finds the
    version, completes what is missing and returns it. If a person moves the champion, a repeated run does not move it
    back.

    Args:
        bundle: a folder written by ``registry.bundle.assemble_bundle``.
        name: the registered model's name; models of different names do not compete.
        uri: the registry's address, see ``registry.backend.location.resolve_uri``.
        params: parameters to show beside the configs in MLflow's UI; nested tables get dotted names.
        gate: margins and limits of the decision; None means the defaults.

    Raises:
        InputError: the bundle is refused, or the registry cannot be reached or read.
    """
    manifest = verify_bundle(bundle)
    client = RegistryClient(uri, create=True)
    with locked(client, name) as lease:
        reconcile(client, name)
        version = client.find(name, manifest.digest)
        if version is None:
            version = client.create_version(name, bundle, manifest, run_numbers(bundle, manifest, params or {}))
        else:
            client.bundles.repair(version, bundle)
        decision = _known_decision(client, version) or _decide(client, version, bundle, gate or DEFAULTS, lease)
        champion = client.aliases(name).get(CHAMPION)
    return Registered(name, version.version, version.run_id, client.address, manifest.digest, champion, decision)


def attach(name: str, version: int | str, path: Path, uri: str | None = None) -> None:
    """Show a file, such as a report, beside a version in MLflow's UI; a later file of the same name replaces it.

    Args:
        name: the registered model's name.
        version: the version's number, or an alias.
        path: the file.
        uri: the registry's address.

    Raises:
        InputError: there is no such file or version.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path} to attach to version {version} of '{name}'.")
    client = RegistryClient(uri)
    client.bundles.attach(client.get(name, version), path)


def run_numbers(bundle: Path, manifest: Manifest, params: Mapping[str, Any]) -> RunNumbers:
    """Return what MLflow shows of a bundle: configs, history and summary, under names that MLflow accepts."""
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
    return RunNumbers(shown, [*_by_epoch(history), *_tested(bundle), *_summary(record)], tags)


def _known_decision(client: RegistryClient, version: Version) -> Decision | None:
    """Return what was decided about this bundle, even as a version that was deleted since."""
    if known := decision_of(version):
        return known
    known = earlier_decision(client, version.name, version.tags[DIGEST_TAG])
    if known:
        client.note(version, DECISION_TAG, known.model_dump_json())
    return known


def _decide(client: RegistryClient, version: Version, bundle: Path, gate: GateConfig, lease: Lease) -> Decision:
    """Ask the gate, and carry its decision out."""
    champion, recent = client.aliases(version.name).get(CHAMPION), _recent_profiles(client, version)
    if champion is None:
        decision = decide(bundle, recent=recent, config=gate)
    else:
        decision = _decide_against(client, version.name, champion, bundle, recent, gate)
    change = Change(
        kind="decision",
        version=version.version,
        before=champion,
        after=version.version if decision.outcome == "promote" else champion,
        why=decision.reason[:MAX_CHARACTERS],
        by=whoami(),
        bundle=version.tags[DIGEST_TAG],
        decision=decision,
        run=version.run_id,
    )
    carry_out(client, version, change, lease)
    return decision


def _decide_against(
    client: RegistryClient,
    name: str,
    number: int,
    bundle: Path,
    recent: Sequence[Mapping[str, Any]],
    gate: GateConfig,
) -> Decision:
    """Ask the gate about a bundle and a champion; a champion that cannot be read keeps its place."""
    try:
        champion = client.get(name, number)
        with client.bundles.folder(champion, COMPARED_FILES) as champion_bundle:
            champion.check(read_manifest(champion_bundle))
            return decide(bundle, number, champion_bundle, recent, gate)
    except InputError as error:
        logger.warning("Champion %s of %s cannot be compared with: %s", number, name, error)
        reason = f"Held: champion {number} cannot be compared with. {error}"
        alone = decide(bundle, recent=recent, config=gate)
        outcome = "hold" if alone.outcome == "promote" else alone.outcome
        found = {"outcome": outcome, "reason": reason, "reasons": (reason, *alone.reasons), "champion": number}
        return alone.model_copy(update=found)


def _recent_profiles(client: RegistryClient, version: Version) -> list[Mapping[str, Any]]:
    """Return the profiles of the last versions before this one that have one, newest first."""
    earlier = [other for other in client.versions(version.name) if other.version < version.version]
    profiles = (_profile(client, other) for other in reversed(earlier))
    return list(islice((profile for profile in profiles if profile is not None), RECENT_VERSIONS))


def _profile(client: RegistryClient, version: Version) -> Mapping[str, Any] | None:
    try:
        text = client.bundles.read(version, PROFILE)
    except InputError as error:
        logger.warning("The profile of version %s of %s is not compared with: %s", version.version, version.name, error)
        return None
    return None if text is None else dict(json.loads(text))


def _by_epoch(history: list[dict[str, Any]]) -> list[tuple[str, float, int]]:
    return [
        (_metric_name(name), float(value), int(record["epoch"]))
        for record in history
        for name, value in record.items()
        if name != "epoch" and isinstance(value, int | float) and math.isfinite(value)
    ]


def _tested(bundle: Path) -> list[tuple[str, float, int]]:
    """Return what the trainer itself measured at its end, with the names of TensorBoard."""
    path = bundle / RESULTS
    found = json.loads(path.read_text(encoding="utf-8"))["test"] if path.is_file() else {}
    return [(_metric_name(f"test/{name}"), float(value), 0) for name, value in found.items() if math.isfinite(value)]


def _summary(record: EvaluationRecord) -> list[tuple[str, float, int]]:
    """Return the mean and the bounds of each metric of the model and of its baselines."""
    prefix = "" if record.in_sample else f"{record.part}_"
    rows = {f"{prefix}{name}": interval for name, interval in record.metrics.items()}
    for baseline, metrics in record.baselines.items():
        rows |= {f"{baseline}_{prefix}{name}": interval for name, interval in metrics.items()}
    return [
        (f"{_metric_name(name)}{end}", value, 0)
        for name, interval in rows.items()
        for end, value in (("", interval.mean), ("_low", interval.low), ("_high", interval.high))
    ]


def _metric_name(name: str) -> str:
    """Return a name without @, which MLflow does not allow."""
    return name.replace("@", "_at_")
