"""Prints the end of a search: the best trials, the values that they changed, and the file of the winner."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

SHOWN = 8
"""Number of trials in the table; the start is always there."""


def print_search(found: Mapping[str, Any], console: Console) -> None:
    """Print the result of the flow.

    Args:
        found: ``trials`` (each ``TrialResult`` as a dict, by number), ``importances`` and ``output`` (the winner's
            file).
    """
    complete = [trial for trial in found["trials"] if trial["state"] == "complete"]
    console.print()
    console.print(_table(sorted(complete, key=lambda trial: -trial["value"])))
    console.print()
    for line in (_counts(found["trials"]), _importances(found["importances"])):
        if line:
            console.print(line, style="dim", highlight=False)
    path = os.path.relpath(found["output"])
    shown = path if len(path) < len(found["output"]) else found["output"]
    for line in (f"Winner  {shown}", f"Run it  python -m flows.train --config {shown}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(complete: list[Mapping[str, Any]]) -> Table:
    """Return the best trials and the start, each with the values that it changed."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("trial", f"validation {complete[0]['metric']}", "epoch"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what differs from the start")
    for place, trial in enumerate(complete):
        if place < SHOWN or trial["is_start"]:
            changed = ", ".join(f"{name}={value}" for name, value in trial["changed"].items())
            what = "(the start)" if trial["is_start"] else changed
            table.add_row(str(trial["number"]), f"{trial['value']:.4f}", str(trial["best_epoch"]), what)
    return table


def _counts(trials: list[Mapping[str, Any]]) -> str:
    states = [trial["state"] for trial in trials]
    counts = [f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed") if state in states]
    return f"{len(trials)} trials: {', '.join(counts)}. Chosen on validation alone."


def _importances(importances: Mapping[str, float]) -> str:
    shares = ", ".join(f"{name} {share:.0%}" for name, share in importances.items())
    return f"What told good trials from others: {shares}" if shares else ""
