"""Tables for ``python -m registry``: versions, facts, records and comparisons, readable at 80 columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich import box
from rich.table import Column, Table

from evaluation.record import EvaluationRecord
from evaluation.statistics.intervals import Interval
from registry.audit_log import FORCED_TAG, AuditRecord, decision_of
from registry.backend.client import CHAMPION
from registry.backend.version import DIGEST_TAG, Version
from registry.gate.gate_config import Decision


def versions_table(name: str, versions: Sequence[Version], aliases: Mapping[str, int]) -> Table:
    """Return one row a version, newest first."""
    metric = Column("metric", no_wrap=True)
    table = Table("version", "alias", "registered", "trainer, log", metric, "decision", title=name, box=box.SIMPLE)
    for version in reversed(versions):
        names = ", ".join(alias for alias, number in aliases.items() if number == version.version)
        table.add_row(
            str(version.version),
            names,
            _time(version.created_ms).replace(" ", "\n"),
            f"{version.tags.get('trainer', '')}\n{version.tags.get('source', '')}",
            _metric(version).replace(" [", "\n["),
            _outcome(version),
        )
    return table


def facts_table(version: Version, aliases: Mapping[str, int]) -> Table:
    """Return a version's metric, decision, trainer, log and files."""
    table = Table("", Column(overflow="fold"), title=f"{version.name} {version.version}", show_header=False)
    table.box, table.pad_edge = box.SIMPLE, False  # a digest fits into a line
    for key, text in _facts(version, aliases).items():
        table.add_row(key, text)
    return table


def records_table(title: str, records: Sequence[AuditRecord]) -> Table:
    """Return one row a record, newest first; a record that was not done, or was closed after a crash, is marked."""
    champion = Column("champion", no_wrap=True)
    table = Table("when", "what", "version", champion, "by", "why", title=title, box=box.SIMPLE)
    for record in reversed(records):
        table.add_row(
            _time(record.at_ms).replace(" ", "\n"),
            _kind_and_state(record),
            "" if record.version is None else str(record.version),
            f"{record.before or 'none'} → {record.after or 'none'}"
            if record.moves_champion
            else str(record.before or "none"),
            record.by.replace("@", "\n@"),
            record.why if record.forced is None else f"{record.why}\nForced: {record.forced}",
        )
    return table


def decision_table(decision: Decision) -> Table:
    """Return a decision field by field; checks and guardrails are among the reasons."""
    table = Table("", Column(overflow="fold"), title="decision", show_header=False, box=box.SIMPLE)
    for key in [key for key in type(decision).model_fields if key not in ("reason", "guardrails", "data_checks")]:
        if text := _text(getattr(decision, key)):
            table.add_row(key, text)
    return table


def metrics_table(first: Version, second: Version, ours: EvaluationRecord, theirs: EvaluationRecord) -> Table:
    """Return the metrics of two versions, each on the users of its own evaluation."""
    title = f"{first.name}: {first.version} and {second.version}, each on its own users"
    names = [Column(f"version {version.version}", no_wrap=True) for version in (first, second)]
    table = Table("metric", *names, title=title, box=box.SIMPLE)
    table.add_row("users", str(ours.num_users), str(theirs.num_users))
    for metric in dict.fromkeys([*ours.metrics, *theirs.metrics]):
        table.add_row(metric, *(_interval(record.metrics.get(metric)) for record in (ours, theirs)))
    return table


def paired_lines(first: Version, second: Version, decision: Decision) -> list[str]:
    """Return what the gate would find if the second version were the champion."""
    found = [f"If {first.version} were new and {second.version} champion, the gate would find on the same users:"]
    if decision.against_champion is not None:
        users, pair = decision.compared_users or decision.common_users, ""
        if decision.challenger_value is not None and decision.champion_value is not None:
            pair = f"{decision.challenger_value:.4f} and {decision.champion_value:.4f}, "
        found.append(f"{decision.metric} on {users} users: {pair}difference {_interval(decision.against_champion)}")
    if decision.on_common is not None:
        users = decision.common_users
        found.append(f"{decision.metric} on {users} common users: difference {_interval(decision.on_common)}")
    return [*found, decision.reason, *decision.reasons[1:]]  # the first is the reason


def _facts(version: Version, aliases: Mapping[str, int]) -> dict[str, str]:
    decision, forced = decision_of(version), version.tags.get(FORCED_TAG)
    return {
        "champion": "yes" if aliases.get(CHAMPION) == version.version else "no",
        "registered": _time(version.created_ms),
        "metric": _metric(version),
        "decision": decision.reason if decision else "undecided: the registration was interrupted; run it again",
        **({"forced": forced} if forced else {}),
        "trainer": version.tags.get("trainer", ""),
        "log": version.tags.get("source", ""),
        "split": version.tags.get("split_digest", ""),
        "bundle": version.tags.get(DIGEST_TAG, ""),
        "run": version.run_id,
        "files": version.source,
    }


def _outcome(version: Version) -> str:
    decision = decision_of(version)
    outcome = decision.outcome if decision else "undecided"
    return f"{outcome},\nforced" if FORCED_TAG in version.tags else outcome


def _kind_and_state(record: AuditRecord) -> str:
    kind = record.decision.outcome if record.kind == "decision" and record.decision else record.kind
    after_crash = "after a crash" if record.reconciled and record.state == "done" else ""
    state = "" if record.state == "done" else record.state
    return "\n".join(filter(None, [kind, state, after_crash]))


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")


def _metric(version: Version) -> str:
    if "metric_interval" not in version.tags:
        return ""
    return f"{version.tags['metric']} {_interval(Interval(**json.loads(version.tags['metric_interval'])))}"


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    digits = 4 if abs(interval.mean) < 10 else 1
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _text(value: object) -> str:
    """Return a field of a decision as text; empty if it holds nothing."""
    if isinstance(value, Interval):
        return _interval(value)
    if isinstance(value, tuple):
        return "\n".join(map(_text, value))
    if isinstance(value, Mapping):
        return "\n".join(f"{key} {text}" for key, text in value.items())
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
