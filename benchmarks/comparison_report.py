"""Report the rows of ``comparison.py``: a table for a terminal, a page, and a picture."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
from machine import GIB
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter
from row_names import compared

from evaluation.report.plots import DASHES
from evaluation.report.svg import INK, SERIES, panel
from evaluation.seed_comparison import across_seeds, difference

BARS = {"item-knn-bm25": "BM25", "ease": "EASE"}
"""Rows whose validation NDCG is a bar for the others, and the name of the bar."""

NEVER = "never"
EXPLANATIONS = (
    "Trained rows use the loss, the batches and the learning rate of the config. They stop when validation no longer "
    "improves, at their last epoch, or when their time is over. Their best epoch is measured. Baselines use their "
    "defaults.",
    "Load: number of other processes that wanted a core when the run began. Seconds are wall-clock time.",
    "Above start: peak memory minus the memory after the graph and all libraries were loaded.",
)
PARTS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Row:
    """What ``comparison_row.py`` measured: for each seed a dict, and the users' metrics ("test ndcg@20" to (N,))."""

    name: str
    runs: Sequence[Mapping[str, Any]]
    users: Sequence[Mapping[str, np.ndarray]] = field(repr=False)
    failed: str = ""


def report(description: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Return all numbers as plain JSON."""
    metrics = compared(description["k"])
    done = [row for row in rows if not row.failed]
    bars = {row.name: [watched[metrics[1]] for watched in row.runs[0]["watched"]] for row in done if row.name in BARS}
    counts = {name: done[0].runs[0][name] for name in ("num_users", "num_songs")} if done else {}
    entries = [
        {"name": row.name, "failed": row.failed} if row.failed else _entry(row, done[0], metrics, bars) for row in rows
    ]
    return {**description, **counts, "metrics": metrics, "bars": bars, "rows": entries}


def _entry(row: Row, first: Row, metrics: Sequence[str], bars: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    parts = {title: _intervals(across_seeds(_part(row, part, metrics), seed=0)) for part, title in PARTS.items()}
    ahead = {} if row is first else difference(_part(first, "test", metrics), _part(row, "test", metrics), seed=0)
    return {
        "name": row.name,
        **parts,
        "behind_first": _intervals(ahead),
        "fit_seconds": median(run["fit_seconds"] for run in row.runs),
        "peak_bytes": max(run["peak_bytes"] for run in row.runs),
        "above_start_bytes": max(run["peak_bytes"] - run["start_bytes"] for run in row.runs),
        "out_of_time": any(run.get("stopped") == "budget" for run in row.runs),
        "seconds_to": {bar: _seconds_to(row, values, metrics[1]) for bar, values in bars.items()},
        "runs": [dict(run) for run in row.runs],
    }


def _part(row: Row, part: str, metrics: Sequence[str]) -> list[dict[str, np.ndarray]]:
    return [{metric: users[f"{part} {metric}"] for metric in metrics} for users in row.users]


def _intervals(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return {name: {end: asdict(one)[end] for end in ("mean", "low", "high")} for name, one in found.items()}


def _seconds_to(row: Row, bars: Sequence[float], metric: str) -> list[float | None]:
    """Return for each seed the seconds at which validation first reaches the bar of the same users; None for never."""
    return [
        next((point["seconds"] for point in curve(run, seed) if point[metric] >= bars[seed]), None)
        for seed, run in enumerate(row.runs)
    ]


def curve(run: Mapping[str, Any], seed: int) -> list[dict[str, float]]:
    """Return the points of a training, or the single point of a baseline at the end of its fit."""
    return run["curve"] if "curve" in run else [{"seconds": run["fit_seconds"], **run["watched"][seed]}]


# The table on a terminal


def table(found: Mapping[str, Any]) -> str:
    """Return the table, at most 80 columns wide."""
    width = max(13, *(len(row["name"]) for row in found["rows"]))
    heads = [f"{'row':{width}}", *(f"{metric:18}" for metric in found["metrics"])]
    heads += [f"{'fit s':>6}", *(f"{name:>5}" for name in BARS.values()), f"{'GiB':>4}"]
    notes = [textwrap.fill(line, 80, subsequent_indent="  ") for line in _notes(found)]
    return "\n".join([" ".join(heads), *(_line(row, found, width) for row in found["rows"]), "", *notes])


def _line(row: Mapping[str, Any], found: Mapping[str, Any], width: int) -> str:
    if "failed" in row:
        return f"{row['name']:{width}} {row['failed'][: 79 - width]}"
    cells = [f"{row['name']:{width}}", *(_short(row["test"][metric]) for metric in found["metrics"])]
    cells += [f"{_fit(row):>6}", *(f"{_to_bar(row, bar):>5}" for bar in BARS)]
    return " ".join([*cells, f"{row['peak_bytes'] / GIB:4.1f}"])


def _short(interval: Mapping[str, float]) -> str:
    low, high = (f"{interval[end]:.4f}".lstrip("0") for end in ("low", "high"))
    return f"{interval['mean']:.4f} {low}-{high}"


def _fit(row: Mapping[str, Any]) -> str:
    return _seconds(row["fit_seconds"]) + "*" * row["out_of_time"]


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _to_bar(row: Mapping[str, Any], bar: str) -> str:
    """Format the seconds to a bar: the median if all seeds reach it, else how many do."""
    if bar not in row["seconds_to"]:
        return "-"
    each = row["seconds_to"][bar]
    reached = [seconds for seconds in each if seconds is not None]
    if len(reached) == len(each):
        return _seconds(median(reached))
    return f"{len(reached)}/{len(each)}" if reached else NEVER


def _notes(found: Mapping[str, Any]) -> list[str]:
    seeds = "one seed" if found["seeds"] == 1 else f"{found['seeds']} seeds"
    users, songs = (found.get(name, 0) for name in ("num_users", "num_songs"))
    lines = [
        f"{users:,} test users, all {songs:,} songs ranked, 95 % intervals; {seeds}.",
        "fit: preparing the graph, training, and the validation that chooses the epoch.",
        f"BM25, EASE: seconds of training, without validation, until ndcg@{found['k']} on validation reaches theirs; "
        "measured after each epoch, and within an epoch each time the seconds have grown by a quarter.",
        "GiB: peak memory of the row's process, with Python and its libraries.",
    ]
    if any(row.get("out_of_time") for row in found["rows"]):
        lines.append(f"* out of time: no further epoch starts after {found['budget']:g} s.")
    bars = ", ".join(f"{BARS[name]} {np.mean(values):.4f}" for name, values in found["bars"].items())
    return [*lines, f"Bars on validation: {bars}."] if bars else lines


# The page


def markdown(found: Mapping[str, Any]) -> str:
    """Return the page: the table with all columns, the machine, the curves, and the command."""
    recall, ndcg = found["metrics"]
    first = next((row["name"] for row in found["rows"] if "failed" not in row), "")
    heads = ["", recall, ndcg, f"{first} ahead, {ndcg}", f"validation {ndcg}", "fit, s"]
    heads += [*(f"to {name}, s" for name in BARS.values()), "memory, GiB", "above start, GiB"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(_cells(row, found) for row in found["rows"])]
    facts = [f"{name}: {found[name]}" for name in ("machine", "threads", "load", "commit", "date", "config")]
    facts.append("epochs at most: " + ", ".join(f"{name} {number}" for name, number in found["epochs"].items()))
    head, foot = [f"# Comparison on {found['data']}", "", *lines, ""], ["```", found["command"], "```", ""]
    picture = [f"![Learning curves]({found['data']}.svg)", ""]
    notes = [*_paragraphs(_notes(found)), *_paragraphs(facts), *_paragraphs(EXPLANATIONS)]
    return "\n".join([*head, *notes, *picture, *foot])


def _paragraphs(lines: Sequence[str]) -> list[str]:
    return [*(f"{line}  " for line in lines[:-1]), lines[-1], ""]


def _cells(row: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    if "failed" in row:
        return f"| {row['name']} | {row['failed'].replace('|', '/')} |" + " |" * 8
    ndcg = found["metrics"][1]
    behind = _long(row["behind_first"][ndcg], "+") if row["behind_first"] else ""
    cells = [row["name"], *(_long(row["test"][metric]) for metric in found["metrics"]), behind]
    cells += [f"{row['validation'][ndcg]['mean']:.4f}", _fit(row), *(_to_bar(row, bar) for bar in BARS)]
    memory = [f"{row[name] / GIB:.2f}" for name in ("peak_bytes", "above_start_bytes")]
    return f"| {' | '.join([*cells, *memory])} |".replace("|  |", "| |")


def _long(interval: Mapping[str, float], sign: str = "") -> str:
    mean, low, high = (f"{interval[end]:{sign}.4f}" for end in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


# The picture


def picture(found: Mapping[str, Any]) -> str:
    """Draw validation NDCG against seconds as SVG: a curve per training, a level after the fit per baseline."""
    metric, rows = found["metrics"][1], [row for row in found["rows"] if "failed" not in row]
    target = io.StringIO()
    # text as shapes, since the reader of the picture may lack the font
    with panel(height=330.0) as (figure, axes), mpl.rc_context({"svg.fonttype": "path"}):
        last = max((point["seconds"] for row in rows for point in curve(row["runs"][0], 0)), default=1.0)
        for place, row in enumerate(rows):
            _draw(axes, row, place, metric, last)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("seconds of training, or of a baseline's fit")
        axes.set_ylabel(f"{metric} on validation")
        if rows:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, handlelength=2.2)
        figure.set_facecolor("white")
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    return target.getvalue()


def _draw(axes: Axes, row: Mapping[str, Any], place: int, metric: str, last: float) -> None:
    points, colour = curve(row["runs"][0], 0), SERIES[place % len(SERIES)]
    seconds, values = [max(point["seconds"], 0.01) for point in points], [point[metric] for point in points]
    if len(points) > 1:
        axes.plot(seconds, values, color=colour, label=row["name"])
        return
    axes.plot([seconds[0], last], values * 2, color=colour, linestyle=DASHES[1 + place % 3], linewidth=1.2)
    axes.plot(seconds, values, "o", color=colour, label=row["name"], markeredgecolor=INK, markeredgewidth=0.5)
