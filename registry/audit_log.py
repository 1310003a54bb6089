"""The audit log: a record of every decision about a model and of every move of its champion, kept in MLflow.

A record is a run of the experiment ``<name>/decisions``. It is opened with everything that is intended (intent), then
the alias is moved in one call, then the run is closed (done). If a crash leaves a record open, the next start closes it
by looking at the alias: if it moved, the record is done, else abandoned. A closed record is never changed or deleted.
"""

from __future__ import annotations

import getpass
import socket
import time
from dataclasses import dataclass
from typing import Literal, get_args

from data.errors import InputError
from registry.backend.client import CHAMPION, RegistryClient
from registry.backend.lock import Lease, locked
from registry.backend.runs import MlflowRun
from registry.backend.version import Version
from registry.gate.gate_config import Decision

Kind = Literal["decision", "promotion", "rollback", "outside", "deletion"]
State = Literal["intent", "done", "abandoned"]

DECISION_TAG = "decision"
FORCED_TAG = "forced"
STATES: dict[str, State] = {"RUNNING": "intent", "FINISHED": "done", "KILLED": "abandoned"}
MAX_CHARACTERS = 4000
"""Longest reason, and longest piece of a decision; MLflow cuts a run's tag at 8000, some databases earlier."""

MAX_LINEAGE = 100
"""Former champions that rollbacks can go back through, one after the other."""


@dataclass(frozen=True)
class Change:
    """A decision about a version, a move of the champion, or a deletion; also while it is only intended."""

    kind: Kind
    """The gate's decision; a person's promotion or rollback; a move that was found and nobody recorded; a deletion."""
    version: int | None
    """The version it is about; None if the alias was found removed."""
    before: int | None
    """The champion at the time."""
    after: int | None
    """The champion once the change is done."""
    why: str
    """The reason, as a person gave it or the gate found it."""
    by: str
    """User and host."""
    bundle: str = ""
    """Digest of the version's bundle."""
    forced: str | None = None
    """A person's reason for overruling the gate, if that was needed."""
    decision: Decision | None = None
    """The gate's decision with its inputs, numbers and reasons."""
    run: str = ""
    """The run that holds the bundle."""

    @property
    def moves_champion(self) -> bool:
        """Return if the champion is another one afterwards."""
        return self.before != self.after


@dataclass(frozen=True)
class AuditRecord(Change):
    """A change as it is recorded in the registry."""

    id: str = ""
    state: State = "intent"
    reconciled: bool = False
    """True if a crash left it open, and the next start closed it."""
    at_ms: int = 0
    """When it was intended; later records have later times."""
    lineage: tuple[int, ...] = ()
    """The champions that led to this one, oldest first, once it is done; so a rollback has to read one record only."""


def records(client: RegistryClient, name: str, newest: int | None = None) -> list[AuditRecord]:
    """Return the records of a model, oldest first; with ``newest`` only so many of the newest."""
    return [_record(run) for run in client.runs.find(_experiment(name), newest=newest)]


def champion_lineage(client: RegistryClient, name: str) -> tuple[int, ...]:
    """Return the champions that led to the present one, oldest first, without those that a rollback took back."""
    last = _last_move(client, name)
    return last.lineage if last else ()


def extended(lineage: tuple[int, ...], change: Change) -> tuple[int, ...]:
    """Return the lineage after one more change."""
    if not change.moves_champion or change.after is None or lineage[-1:] == (change.after,):
        return lineage
    if change.kind == "rollback" and change.after in lineage:
        return lineage[: len(lineage) - lineage[::-1].index(change.after)]
    return (*lineage, change.after)[-MAX_LINEAGE:]


def decision_of(version: Version) -> Decision | None:
    """Return the gate's decision that was recorded on a version."""
    text = version.tags.get(DECISION_TAG)
    return Decision.model_validate_json(text) if text else None


def earlier_decision(client: RegistryClient, name: str, digest: str) -> Decision | None:
    """Return what the gate has decided about a bundle, even if its version was deleted since."""
    query = f"tags.kind = 'decision' and tags.bundle = '{digest}' and attributes.status = 'FINISHED'"
    found = [_record(run).decision for run in client.runs.find(_experiment(name), query, newest=1)]
    return found[0] if found else None


def carry_out(client: RegistryClient, version: Version, change: Change, lease: Lease) -> AuditRecord:
    """Record what is intended with a version, do it, and record that it is done.

    Args:
        client: the registry.
        version: the version to move the champion to, or to delete.
        change: what is intended.
        lease: the lease of the model's lock, which the caller holds.

    Raises:
        InputError: the registry cannot be written; the next start reconciles what was intended.
    """
    record = _open(client, version.name, change)
    if record.kind == "deletion":
        client.delete_version(version, lease)
    elif record.moves_champion:
        client.point(CHAMPION, version, lease)
    return _close(client, version.name, record)


def reconcile(client: RegistryClient, name: str) -> list[AuditRecord]:
    """Close the records that crashes left open, by what happened, and note a champion that others moved.

    The caller holds the model's lock.

    Returns:
        the records that were closed or added.
    """
    champion = client.aliases(name).get(CHAMPION)
    left = [_record(run) for run in client.runs.find(_experiment(name), "attributes.status = 'RUNNING'")]
    closed = [_close(client, name, record, _happened(client, record, name, champion)) for record in left]
    move = _last_move(client, name)
    last = move.after if move else None
    if champion == last:
        return closed
    why = "Found moved by something that keeps no records, such as MLflow's UI or an earlier release."
    outside = _open(client, name, Change("outside", champion, last, champion, why, whoami()))
    return [*closed, _close(client, name, outside)]


def reconcile_if_idle(client: RegistryClient, name: str) -> None:
    """Close what a crash left open, before reading; if another process is at work, leave it to that process."""
    if client.runs.find(_experiment(name), "attributes.status = 'RUNNING'", newest=1):
        try:
            with locked(client, name, wait=False):
                reconcile(client, name)
        except InputError:
            return


def whoami() -> str:
    """Return user and host, for the record."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _happened(client: RegistryClient, record: AuditRecord, name: str, champion: int | None) -> bool:
    """Return if the change of an open record was carried out."""
    if record.kind == "deletion":
        return record.version not in client.numbers(name)
    return not record.moves_champion or record.after == champion


def _last_move(client: RegistryClient, name: str) -> AuditRecord | None:
    moves = client.runs.find(_experiment(name), "tags.moves = 'true' and attributes.status = 'FINISHED'", newest=1)
    return _record(moves[0]) if moves else None


def _open(client: RegistryClient, name: str, change: Change) -> AuditRecord:
    """Record an intent, with a later time than all other records, whatever the clocks say."""
    last = client.runs.find(_experiment(name), newest=1)
    at_ms = max(time.time_ns() // 1_000_000, last[0].start_ms + 1 if last else 0)
    title = f"{change.decision.outcome if change.decision else change.kind} {change.version or ''}".strip()
    lineage = extended(champion_lineage(client, name), change)
    tags = {**_tags(change), "line": " ".join(map(str, lineage))}
    return _record(client.runs.open(_experiment(name), title, tags, at_ms))


def _close(client: RegistryClient, name: str, record: AuditRecord, happened: bool | None = None) -> AuditRecord:
    """Complete a record and its version's tags; ``happened`` is given if a crash had left it open."""
    if happened is not None:
        client.runs.tag(record.id, {"reconciled": "true"})
    if happened is not False:
        _note_on_version(client, name, record)
        if record.kind == "deletion":
            client.bundles.delete(record.run)
    client.runs.close(record.id, "KILLED" if happened is False else "FINISHED")
    state: State = "abandoned" if happened is False else "done"
    return AuditRecord(**{**vars(record), "state": state, "reconciled": happened is not None})


def _note_on_version(client: RegistryClient, name: str, record: AuditRecord) -> None:
    decided = record.decision.model_dump_json() if record.decision and record.kind == "decision" else None
    notes = {key: text for key, text in {DECISION_TAG: decided, FORCED_TAG: record.forced}.items() if text}
    if notes and record.version in client.numbers(name):
        version = client.get(name, record.version)
        for key, text in notes.items():
            client.note(version, key, text)


def _tags(change: Change) -> dict[str, str]:
    """Return a change as tags of a run; a decision is too long for one tag and is cut into pieces."""
    plain = {key: value for key, value in vars(change).items() if key != "decision" and value is not None}
    text = change.decision.model_dump_json() if change.decision else ""
    pieces = [text[start : start + MAX_CHARACTERS] for start in range(0, len(text), MAX_CHARACTERS)]
    decision = {f"decision.{number:03}": piece for number, piece in enumerate(pieces)}
    return {key: str(value) for key, value in plain.items()} | decision | {"moves": str(change.moves_champion).lower()}


def _record(run: MlflowRun) -> AuditRecord:
    tags = run.tags
    text = "".join(tags[key] for key in sorted(tags) if key.startswith("decision."))
    kind: Kind = next(kind for kind in get_args(Kind) if kind == tags["kind"])
    version, before, after = (int(tags[key]) if key in tags else None for key in ("version", "before", "after"))
    return AuditRecord(
        kind=kind,
        version=version,
        before=before,
        after=after,
        why=tags["why"],
        by=tags["by"],
        bundle=tags.get("bundle", ""),
        forced=tags.get("forced"),
        decision=Decision.model_validate_json(text) if text else None,
        run=tags.get("run", ""),
        id=run.run_id,
        state=STATES.get(run.status, "abandoned"),
        reconciled="reconciled" in tags,
        at_ms=run.start_ms,
        lineage=tuple(map(int, tags.get("line", "").split())),
    )


def _experiment(name: str) -> str:
    return f"{name}/decisions"
