"""The last thing a local run prints: numbers with intervals, what was cached, the version, and where the files are."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data.project import project_root

INDENT = " " * 12


def print_summary(outcome: Mapping[str, Any], console: Console) -> None:
    """Print what ``flows.outcome`` kept of a run."""
    stages = {stage["stage"]: stage for stage in outcome["stages"]}
    console.print()
    console.print(_stage_table(outcome["stages"]))
    if "evaluate" in stages:
        console.print()
        record = json.loads((Path(stages["evaluate"]["folder"]) / "metrics.json").read_text(encoding="utf-8"))
        console.print(_metric_table(record, stages["train"]["counts"].get("model", "model")))
        console.print(_what_was_measured(record), style="dim", highlight=False, soft_wrap=True)
    console.print()
    for line in _closing_lines(outcome, stages):
        console.print(_indented(line, console.width), markup=False, highlight=False, soft_wrap=True)


def _stage_table(stages: list[Mapping[str, Any]]) -> Table:
    table = Table("stage", "state", "seconds", "why it ran", box=None, header_style="bold", pad_edge=False)
    for stage in stages:
        state = "[green]cached" if stage["cached"] else "ran"
        seconds = "" if stage["cached"] else f"{stage['seconds']:.1f}"
        table.add_row(stage["stage"], state, seconds, stage["why"])
    return table


def _what_was_measured(record: Mapping[str, Any]) -> str:
    users = f"{record['num_users']:,} users, all {record['num_songs']:,} songs ranked; mean and 95 % interval"
    return f"{users}; in-sample: says nothing about new songs" if record["in_sample"] else f"{users} on the test songs"


def _metric_table(record: Mapping[str, Any], model: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    baselines = record["baselines"]
    for heading in ("metric", model, *baselines):
        table.add_column(heading, no_wrap=True)
    for metric, interval in record["metrics"].items():
        others = (_number(values[metric]) for values in baselines.values())
        table.add_row(metric, _number(interval), *others)
    return table


def _number(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:.4f} ({interval['low']:.4f} to {interval['high']:.4f})"


def _closing_lines(outcome: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    if outcome["cached"]:
        lines.append("Nothing new: every stage was cached.")
    if "register" in stages:
        registered = stages["register"]["counts"]
        lines.append(f"Registered  {outcome['name']} version {registered['version']}: {registered['decision']}")
    if "graph" in stages:
        lines.append(f"Graph       {_short(str(project_root() / 'data' / 'graph.pt'))}")
    folders = (("Model", "train"), ("Evaluation", "evaluate"))
    return lines + [f"{label:<11} {_short(stages[name]['folder'])}" for label, name in folders if name in stages]


def _indented(line: str, width: int) -> str:
    """Wrapped between words below the text; a path stays whole, so that it can be copied."""
    return textwrap.fill(line, width, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False)


def _short(folder: str) -> str:
    """Relative to where the person is, if that is shorter."""
    relative = os.path.relpath(folder)
    return relative if len(relative) < len(folder) else folder
