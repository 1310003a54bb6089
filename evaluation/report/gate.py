"""What the gate decided and from what, and what the audit of leaks found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.report.blocks import Block, Cell, Note, Section, Table, number
from evaluation.report.readings import section
from evaluation.report.sources import Sources, read_json
from evaluation.report.words import as_interval, count, decimal, gap, gap_kind, signed, signed_ends

INTERVALS = {
    "against_popularity": "model minus popularity",
    "against_champion": "model minus champion",
    "on_common": "model minus champion, on users and songs that both know",
}
NUMBERS = {
    "challenger_value": "the model's value on the compared users",
    "champion_value": "the champion's value on the same users",
    "margin": "what may be lost",
    "noise": "a difference above this is more than noise between seeds",
}
COUNTS = {
    "users": "users on whom the model was measured",
    "compared_users": "users on whom model and champion were compared",
    "common_users": "users that both know",
    "needed_users": "users that the power calculation asks for",
}
FACTS = {
    "better": "the model is better than the champion, above the noise",
    "evaluated_models": "the evaluated models, trained without the held-out listens, were compared",
    "forced": "a person decided against or without the gate",
}


def gate(sources: Sources) -> Section:
    """The decision, with everything that it was based on."""
    decision = sources.decision()
    if not decision:
        return section("gate", absent="No decision was recorded for this run.")
    blocks: list[Block] = [Note(text, "reason") for text in (decision["reason"], *_others(decision))]
    blocks.append(_compared(decision))
    if decision.get("guardrails"):
        blocks.append(_guardrails(decision["guardrails"]))
    if decision.get("data_checks"):
        blocks.append(_checks(decision["data_checks"], "Checks of the log"))
    return section("gate", blocks)


def audit(sources: Sources) -> Section | None:
    """The audit of leaks that the bundle carries; None where there was none."""
    folder = sources.registration
    found = read_json(folder / "bundle" / "audit.json", {}) if folder else {}
    if not found:
        return None
    canary = [{"name": "canary", **found["canary"]}] if found.get("canary") else []
    blocks: list[Block] = [_checks([*found["checks"], *canary], "Checks for leaks")]
    blocks += [Note(str(text)) for text in found.get("cannot_say", [])]
    return section("audit", blocks)


def _others(decision: Mapping[str, Any]) -> list[str]:
    """The reasons that the decision's own sentence does not give already."""
    told = decision["reason"].casefold()
    return [reason for reason in decision.get("reasons", []) if reason.casefold() not in told]


def _compared(decision: Mapping[str, Any]) -> Table:
    rows = [_interval_row(says, values) for key, says in INTERVALS.items() if (values := decision.get(key))]
    rows += [
        [Cell(says), number(decimal(value))]
        for key, says in NUMBERS.items()
        if (value := decision.get(key)) is not None
    ]
    rows += [
        [Cell(says), number(count(value))] for key, says in COUNTS.items() if (value := decision.get(key)) is not None
    ]
    rows += [[Cell(says), Cell("yes")] for key, says in FACTS.items() if decision.get(key)]
    rows += [
        [Cell(f"bundle of the {role}"), Cell(digest, "code")] for role, digest in decision.get("compared", {}).items()
    ]
    return Table(("what", "value"), rows, f"What {decision['metric']} says")


def _interval_row(says: str, values: Mapping[str, Any]) -> list[Cell]:
    found = as_interval(values)
    if found is None:
        return [Cell(says), Cell("")]
    return [Cell(says), Cell(signed(found.mean), f"number {gap_kind(found)}", details=(signed_ends(found),))]


def _guardrails(found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            Cell(row["name"]),
            _passed(row),
            *(number("" if row.get(side) is None else decimal(row[side])) for side in ("challenger", "champion")),
            number(gap(difference) if (difference := as_interval(row.get("difference"))) else ""),
            number(count(row["users"])),
            Cell(row.get("says", ""), "muted"),
        ]
        for row in found
    ]
    return Table(("guardrail", "passed", "model", "champion", "difference", "users", ""), rows, "Guardrails")


def _checks(found: Sequence[Mapping[str, Any]], caption: str) -> Table:
    rows = [[Cell(str(row["name"])), _passed(row), Cell(str(row.get("says", "")), "muted")] for row in found]
    return Table(("check", "passed", "what was found"), rows, caption)


def _passed(row: Mapping[str, Any]) -> Cell:
    return Cell("yes", "good") if row["passed"] else Cell("no", "bad")
