"""The last thing a search prints: its best trials, what they changed, and where the winner is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

SHOWN = 8
"""Trials in the table, and the start, wherever it is."""


def print_search(found: Mapping[str, Any], console: Console) -> None:
    """Print what the flow found.

    Args:
        found: ``tried`` (trials as dicts, by number), ``start`` (values of the config as it is), ``importances`` and
            ``output`` (the winner's file).
    """
    complete = sorted((one for one in found["tried"] if one["state"] == "complete"), key=lambda one: -one["value"])
    console.print()
    console.print(_table(complete, found["start"]))
    console.print()
    for line in (_counts(found["tried"]), _importances(found["importances"])):
        if line:
            console.print(line, style="dim", highlight=False)
    path = os.path.relpath(found["output"])
    shown = path if len(path) < len(found["output"]) else found["output"]
    for line in (f"Winner  {shown}", f"Run it  python -m flows.train --config {shown}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(complete: list[Mapping[str, Any]], start: Mapping[str, Any]) -> Table:
    """The best trials and the start, with what each has changed."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("trial", f"validation {complete[0]['metric']}", "epoch"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what differs from the start")
    for place, one in enumerate(complete):
        if place < SHOWN or one["is_start"]:
            table.add_row(str(one["number"]), f"{one['value']:.4f}", str(one["best_epoch"]), _changed(one, start))
    return table


def _changed(one: Mapping[str, Any], start: Mapping[str, Any]) -> str:
    if one["is_start"]:
        return "(the start)"
    return ", ".join(f"{name}={value}" for name, value in one["values"].items() if value != start[name])


def _counts(tried: list[Mapping[str, Any]]) -> str:
    states = [one["state"] for one in tried]
    told = [f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed") if state in states]
    return f"{len(tried)} trials: {', '.join(told)}. Chosen on validation alone."


def _importances(importances: Mapping[str, float]) -> str:
    told = ", ".join(f"{name} {share:.0%}" for name, share in importances.items())
    return f"What told good trials from others: {told}" if told else ""
