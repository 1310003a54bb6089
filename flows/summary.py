"""The summary at the end of a local run: numbers with intervals, what was cached, the version, and the files."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data.project import artifacts_folder, project_root

INDENT = " " * 12


def print_summary(outcome: Mapping[str, Any], console: Console) -> None:
    """Print the outcome of a run, see ``flows.lifecycle``; of several seeds the first, which is registered."""
    stages = {stage["stage"]: stage for stage in reversed(outcome["stages"])}
    console.print()
    console.print(_stage_table(outcome["stages"]))
    if "evaluate" in stages:
        console.print()
        _print_numbers(stages, console)
    console.print()
    for line in _closing_lines(outcome, stages):
        console.print(_indented(line, console.width), markup=False, highlight=False, soft_wrap=True)


def _print_numbers(stages: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    record = json.loads((Path(stages["evaluate"]["folder"]) / "metrics.json").read_text(encoding="utf-8"))
    model = stages["train"]["counts"].get("model", "model")
    console.print(_metric_table(record, model))
    for line in (_further_metrics(record, model), _what_was_measured(record)):
        console.print(line, style="dim", highlight=False)
    if "seeds" in stages:
        console.print(_between_seeds(stages["seeds"]["counts"]), style="dim", highlight=False)


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
    """Return a row for the model and one for each baseline: recall and NDCG at the k that decides."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    prefix, k = "in_sample_" if record["in_sample"] else "", record["k"]
    shown = [f"{prefix}{name}@{k}" for name in ("recall", "ndcg")]
    for heading in ("model", *shown):
        table.add_column(heading, no_wrap=True)
    for name, metrics in {model: record["metrics"], **record["baselines"]}.items():
        table.add_row(name, *(_number(metrics[metric]) for metric in shown))
    return table


def _further_metrics(record: Mapping[str, Any], model: str) -> str:
    """Return the model's other numbers at the k that decides, in a few lines."""
    last = f"@{record['k']}"
    means = {name.removesuffix(last): value["mean"] for name, value in record["metrics"].items() if name.endswith(last)}
    others = {name.removeprefix("in_sample_"): mean for name, mean in means.items()}
    shown = (f"{name} {mean:.4g}" for name, mean in others.items() if name not in ("recall", "ndcg"))
    return f"{model} {last}: {', '.join(shown)}"


def _between_seeds(counts: Mapping[str, Any]) -> str:
    metric, mean, sd = counts["metric"], counts["mean"], counts["sd"]
    return f"{counts['seeds']} seeds: {metric} {mean:.4f} on average, standard deviation between seeds {sd:.4f}"


def _number(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:.4f} ({interval['low']:.4f} to {interval['high']:.4f})"


def _closing_lines(outcome: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    if outcome["cached"]:
        lines.append("Nothing new: every stage was cached.")
    if "warm-start" in stages:
        lines.append(f"Started     from {stages['warm-start']['counts']['from']}")
    if "register" in stages:
        registered = stages["register"]["counts"]
        lines.append(f"Registered  {outcome['name']} version {registered['version']}: {registered['decision']}")
    if "graph" in stages:
        lines.append(f"Graph       {_short(str(project_root() / 'data' / 'graph.pt'))}")
    if "report" in stages:
        lines.append(f"Report      {_short(str(artifacts_folder() / 'reports' / outcome['name']) + '.html')}")
    folders = (("Model", "train"), ("Evaluation", "evaluate"))
    return lines + [f"{label:<11} {_short(stages[name]['folder'])}" for label, name in folders if name in stages]


def _indented(line: str, width: int) -> str:
    """Wrap a line between words; a path stays whole, so that it can be copied."""
    return textwrap.fill(line, width, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False)


def _short(folder: str) -> str:
    """Return the path relative to the current folder if that is shorter."""
    relative = os.path.relpath(folder)
    return relative if len(relative) < len(folder) else folder
