"""The sections on the gate's decision and on the audit of leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.report.blocks import Block, Cell, Note, Section, Table, number
from evaluation.report.number_format import as_interval, count, decimal, gap, gap_kind, signed, signed_ends
from evaluation.report.section_texts import section
from evaluation.report.sources import Sources, read_json

INTERVALS = {
    "against_popularity": "model minus popularity",
    "against_champion": "model minus champion",
    "on_common": "model minus champion, on users and songs that both know",
}
NUMBERS = {
    "challenger_value": "the model's value on the compared users",
    "champion_value": "the champion's value on the same users",
    "margin": "the loss that is allowed",
    "noise": "a difference above this is more than noise between seeds",
}
COUNTS = {
    "users": "measured users",
    "compared_users": "users in the comparison of model and champion",
    "common_users": "users that both know",
    "needed_users": "users that the power calculation requires",
}
FACTS = {
    "better": "the model is better than the champion, above the noise",
    "evaluated_models": "the evaluated models, trained without the held-out listens, were compared",
    "forced": "a person decided against or without the gate",
}


def gate(sources: Sources) -> Section:
    """Show the decision and everything that it is based on."""
    decision = sources.decision()
    if not decision:
        return section("gate", absent="No decision was recorded for this run.")
    reason = decision["reason"]
    more = [text for text in decision.get("reasons", []) if text.casefold() not in reason.casefold()]
    blocks: list[Block] = [Note(text, "reason") for text in (reason, *more)]
    blocks.append(_comparison(decision))
    if decision.get("guardrails"):
        blocks.append(_guardrails(decision["guardrails"]))
    if decision.get("data_checks"):
        blocks.append(_checks(decision["data_checks"], "Checks of the log"))
    return section("gate", blocks)


def audit(sources: Sources) -> Section | None:
    """Show the audit of leaks in the bundle; None if there is none."""
    folder = sources.registration
    found = read_json(folder / "bundle" / "audit.json", {}) if folder else {}
    if not found:
        return None
    canary = [{"name": "canary", **found["canary"]}] if found.get("canary") else []
    blocks: list[Block] = [_checks([*found["checks"], *canary], "Checks for leaks")]
    blocks += [Note(str(text)) for text in found.get("cannot_say", [])]
    return section("audit", blocks)


def _comparison(decision: Mapping[str, Any]) -> Table:
    rows = []
    for key, label in INTERVALS.items():
        if difference := as_interval(decision.get(key)):
            kind = f"number {gap_kind(difference)}"
            rows.append([Cell(label), Cell(signed(difference.mean), kind, details=(signed_ends(difference),))])
    for labels, form in ((NUMBERS, decimal), (COUNTS, count)):
        rows += [
            [Cell(label), number(form(decision[key]))] for key, label in labels.items() if decision.get(key) is not None
        ]
    rows += [[Cell(label), Cell("yes")] for key, label in FACTS.items() if decision.get(key)]
    rows += [
        [Cell(f"bundle of the {role}"), Cell(digest, "code")] for role, digest in decision.get("compared", {}).items()
    ]
    return Table(("what", "value"), rows, f"Comparison by {decision['metric']}")


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
