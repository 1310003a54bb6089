"""Records of every decision about a model and of every move of its champion, kept in MLflow.

A record is a run of the experiment ``<name>/decisions``: it is opened with all that is intended (intent), then the
alias is moved in one call, then the run is closed (done). What a crash leaves open is closed at the next start by
looking at the alias: moved is done, not moved is abandoned. A closed record is never changed and never deleted.
"""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from data.errors import InputError
from registry.backend.client import CHAMPION, RegistryClient
from registry.backend.lock import Lease, locked
from registry.backend.runs import Run
from registry.backend.version import Version
from registry.gate.gate_config import Decision

Kind = Literal["decision", "promotion", "rollback", "outside", "deletion"]
State = Literal["intent", "done", "abandoned"]

DECISION_TAG = "decision"
FORCED_TAG = "forced"
STATES: dict[str, State] = {"RUNNING": "intent", "FINISHED": "done", "KILLED": "abandoned"}
MAX_WORDS = 4000
"""Characters of a reason, and of one piece of a decision; MLflow cuts a run's tag at 8000, some databases earlier."""

MAX_LINE = 100
"""How many former champions a rollback can go back through, one after the other."""


@dataclass(frozen=True)
class Entry:
    """What a record says, from the moment at which it was only intended."""

    kind: Kind
    """A decision of the gate; a person's promotion or rollback; a move found that nobody recorded; a deletion."""
    version: int | None
    """The version it is about; None where the alias was found removed."""
    before: int | None
    """The champion at the time."""
    after: int | None
    """The champion once it is done."""
    why: str
    """The reason, as a person gave it or the gate found it."""
    by: str
    """User and host."""
    bundle: str = ""
    """Digest of the version's bundle."""
    forced: str | None = None
    """Why a person overruled the gate, where that was needed."""
    decision: Decision | None = None
    """The gate's decision with its inputs, numbers and reasons."""
    run: str = ""
    """The run that holds the bundle."""

    @property
    def moves(self) -> bool:
        """Whether the champion changes."""
        return self.before != self.after


@dataclass(frozen=True)
class Record(Entry):
    """An entry as it stands in the registry."""

    id: str = ""
    state: State = "intent"
    reconciled: bool = False
    """Whether a crash left it open, and the next start closed it."""
    at_ms: int = 0
    """When it was intended; later records have later times."""
    line: tuple[int, ...] = ()
    """The champions that led to this one, oldest first, once it is done; kept so that a rollback reads one record."""


def records(store: RegistryClient, name: str, newest: int | None = None) -> list[Record]:
    """The records of a model, oldest first; only the newest of them, where asked."""
    return [_record(run) for run in store.runs.find(_experiment(name), newest=newest)]


def line_of_champions(store: RegistryClient, name: str) -> tuple[int, ...]:
    """The champions that led to the present one, oldest first; a rollback takes back what came after its target."""
    last = _last_move(store, name)
    return last.line if last else ()


def extended(line: tuple[int, ...], entry: Entry) -> tuple[int, ...]:
    """The line after one more move."""
    if not entry.moves or entry.after is None or line[-1:] == (entry.after,):
        return line
    if entry.kind == "rollback" and entry.after in line:
        return line[: len(line) - line[::-1].index(entry.after)]
    return (*line, entry.after)[-MAX_LINE:]


def decision_of(version: Version) -> Decision | None:
    """The gate's decision that was recorded on a version."""
    text = version.tags.get(DECISION_TAG)
    return Decision.model_validate_json(text) if text else None


def decided_before(store: RegistryClient, name: str, digest: str) -> Decision | None:
    """What the gate has decided about a bundle, also where its version was deleted since."""
    query = f"tags.kind = 'decision' and tags.bundle = '{digest}' and attributes.status = 'FINISHED'"
    found = [_record(run).decision for run in store.runs.find(_experiment(name), query, newest=1)]
    return found[0] if found else None


def carry_out(store: RegistryClient, version: Version, entry: Entry, lease: Lease) -> Record:
    """Write what is intended with a version, do it, and write that it is done.

    Args:
        store: the registry.
        version: the version to move the champion to, or to delete.
        entry: what is intended.
        lease: of the model's lock, which the caller holds.

    Raises:
        InputError: the registry cannot be written; what was intended is reconciled at the next start.
    """
    record = _open(store, version.name, entry)
    if record.kind == "deletion":
        store.delete_version(version, lease)
    elif record.moves:
        store.point(CHAMPION, version, lease)
    return _close(store, version.name, record)


def reconcile(store: RegistryClient, name: str) -> list[Record]:
    """Close what crashes left open, by the truth; note a champion that was moved by others. The caller has the lock.

    Returns:
        the records that were closed or added.
    """
    champion = store.aliases(name).get(CHAMPION)
    left = [_record(run) for run in store.runs.find(_experiment(name), "attributes.status = 'RUNNING'")]
    closed = [_close(store, name, record, _happened(store, record, name, champion)) for record in left]
    return [*closed, *_note_outside(store, name, champion)]


def reconcile_if_idle(store: RegistryClient, name: str) -> None:
    """For readers: close what a crash left open, unless another process is at work, whose business it then is."""
    if store.runs.find(_experiment(name), "attributes.status = 'RUNNING'", newest=1):
        try:
            with locked(store, name, wait=False):
                reconcile(store, name)
        except InputError:
            return


def whoami() -> str:
    """User and host, for the record."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _happened(store: RegistryClient, record: Record, name: str, champion: int | None) -> bool:
    if record.kind == "deletion":
        return record.version not in store.numbers(name)
    return not record.moves or record.after == champion


def _note_outside(store: RegistryClient, name: str, champion: int | None) -> Iterator[Record]:
    """A champion that no record made: moved in MLflow's UI, by another client, or before there were records."""
    move = _last_move(store, name)
    last = move.after if move else None
    if champion != last:
        why = "Found moved by something that keeps no records, such as MLflow's UI or an earlier release."
        yield _close(store, name, _open(store, name, Entry("outside", champion, last, champion, why, whoami())))


def _last_move(store: RegistryClient, name: str) -> Record | None:
    moves = store.runs.find(_experiment(name), "tags.moves = 'true' and attributes.status = 'FINISHED'", newest=1)
    return _record(moves[0]) if moves else None


def _open(store: RegistryClient, name: str, entry: Entry) -> Record:
    """Write an intent, later than all records there are, whatever the clocks say."""
    last = store.runs.find(_experiment(name), newest=1)
    at_ms = max(time.time_ns() // 1_000_000, last[0].start_ms + 1 if last else 0)
    title = f"{entry.decision.outcome if entry.decision else entry.kind} {entry.version or ''}".strip()
    line = extended(line_of_champions(store, name), entry)
    tags = {**_tags(entry), "line": " ".join(map(str, line))}
    return _record(store.runs.open(_experiment(name), title, tags, at_ms))


def _close(store: RegistryClient, name: str, record: Record, happened: bool | None = None) -> Record:
    """Complete a record, and note on the version what it says of it; ``happened`` is given where it was left open."""
    if happened is not None:
        store.runs.tag(record.id, {"reconciled": "true"})
    if happened is not False:
        _note_on_version(store, name, record)
        if record.kind == "deletion":
            store.bundles.delete(record.run)
    store.runs.close(record.id, "KILLED" if happened is False else "FINISHED")
    state: State = "abandoned" if happened is False else "done"
    return Record(**{**vars(record), "state": state, "reconciled": happened is not None})


def _note_on_version(store: RegistryClient, name: str, record: Record) -> None:
    decided = record.decision.model_dump_json() if record.decision and record.kind == "decision" else None
    notes = {key: text for key, text in {DECISION_TAG: decided, FORCED_TAG: record.forced}.items() if text}
    if notes and record.version in store.numbers(name):
        version = store.get(name, record.version)
        for key, text in notes.items():
            store.note(version, key, text)


def _tags(entry: Entry) -> dict[str, str]:
    plain = {key: value for key, value in vars(entry).items() if key != "decision" and value is not None}
    text = entry.decision.model_dump_json() if entry.decision else ""
    pieces = [text[start : start + MAX_WORDS] for start in range(0, len(text), MAX_WORDS)]
    decision = {f"decision.{number:03}": piece for number, piece in enumerate(pieces)}
    return {key: str(value) for key, value in plain.items()} | decision | {"moves": str(entry.moves).lower()}


def _record(run: Run) -> Record:
    tags = run.tags
    text = "".join(tags[key] for key in sorted(tags) if key.startswith("decision."))
    kind: Kind = next(kind for kind in get_args(Kind) if kind == tags["kind"])
    version, before, after = (int(tags[key]) if key in tags else None for key in ("version", "before", "after"))
    return Record(
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
        line=tuple(map(int, tags.get("line", "").split())),
    )


def _experiment(name: str) -> str:
    return f"{name}/decisions"
