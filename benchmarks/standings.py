"""From what the rows of ``comparison.py`` measured to one report: a table for a terminal, a page, and a picture."""

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
from rows import compared

from evaluation.report.plots import DASHES
from evaluation.report.svg import INK, SERIES, panel
from evaluation.seed_comparison import across_seeds, difference

BARS = {"item-knn-bm25": "BM25", "ease": "EASE"}
"""Rows whose validation NDCG is a bar for the others, and what the bar is called."""

NEVER = "never"
SAID = (
    "Trained rows have the loss, the batches and the learning rate of the config, and stop when validation stands "
    "still, at their last epoch or when their time is up; their best epoch is measured. Baselines have their defaults.",
    "Load: how many other processes wanted a core when the run began; seconds are those of a clock on the wall.",
    "Above start: without what the process held when the graph was loaded and all libraries were warm.",
)
PARTS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Row:
    """What ``contender.py`` found: a dict a seed, and the metrics of every user ("test ndcg@20" to (N,)) a seed."""

    name: str
    runs: Sequence[Mapping[str, Any]]
    users: Sequence[Mapping[str, np.ndarray]] = field(repr=False)
    failed: str = ""


def report(described: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """All numbers as plain JSON."""
    metrics = compared(described["k"])
    done = [row for row in rows if not row.failed]
    bars = {row.name: [watched[metrics[1]] for watched in row.runs[0]["watched"]] for row in done if row.name in BARS}
    counts = {name: done[0].runs[0][name] for name in ("num_users", "num_songs")} if done else {}
    entries = [_entry(row, done[0], metrics, bars) if row in done else _failed(row) for row in rows]
    return {**described, **counts, "metrics": metrics, "bars": bars, "rows": entries}


def _failed(row: Row) -> dict[str, Any]:
    return {"name": row.name, "failed": row.failed}


def _entry(row: Row, first: Row, metrics: Sequence[str], bars: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    parts = {said: _intervals(across_seeds(_part(row, part, metrics), seed=0)) for part, said in PARTS.items()}
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
    """For each seed, the first seconds at which validation is as good as the bar of the same users; None is never."""
    return [_first_at(curve(run, seed), bars[seed], metric) for seed, run in enumerate(row.runs)]


def _first_at(points: Sequence[Mapping[str, float]], bar: float, metric: str) -> float | None:
    return next((point["seconds"] for point in points if point[metric] >= bar), None)


def curve(run: Mapping[str, Any], seed: int) -> list[dict[str, float]]:
    """The points of a training, or the one of a baseline: as good as it gets when it is fitted."""
    return run["curve"] if "curve" in run else [{"seconds": run["fit_seconds"], **run["watched"][seed]}]


# The table on a terminal


def table(found: Mapping[str, Any]) -> str:
    """At most 80 columns."""
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
    """The median over seeds, where all of them reach the bar."""
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
        f"BM25, EASE: seconds, without validation, until ndcg@{found['k']} on validation is as good as theirs; "
        "looked at after each epoch, and within one each time the seconds have grown by a quarter.",
        "GiB: most memory of the row's process, Python and its libraries included.",
    ]
    lines += [f"* out of time: no further epoch starts after {found['budget']:g} s."] * _any_out_of_time(found)
    bars = ", ".join(f"{BARS[name]} {np.mean(values):.4f}" for name, values in found["bars"].items())
    return [*lines, f"Bars on validation: {bars}."] if bars else lines


def _any_out_of_time(found: Mapping[str, Any]) -> bool:
    return any(row.get("out_of_time") for row in found["rows"])


# The page


def markdown(found: Mapping[str, Any]) -> str:
    """The table with all its columns, where it was measured, the curves, and the command."""
    recall, ndcg = found["metrics"]
    first = next((row["name"] for row in found["rows"] if "failed" not in row), "")
    heads = ["", recall, ndcg, f"{first} ahead, {ndcg}", f"validation {ndcg}", "fit, s"]
    heads += [*(f"to {name}, s" for name in BARS.values()), "memory, GiB", "above start, GiB"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(_cells(row, found) for row in found["rows"])]
    facts = [f"{name}: {found[name]}" for name in ("machine", "threads", "load", "commit", "date", "config")]
    facts.append("epochs at most: " + ", ".join(f"{name} {number}" for name, number in found["epochs"].items()))
    head, foot = [f"# Comparison on {found['data']}", "", *lines, ""], ["```", found["command"], "```", ""]
    picture = [f"![Learning curves]({found['data']}.svg)", ""]
    return "\n".join([*head, *_paragraphs(_notes(found)), *_paragraphs(facts), *_paragraphs(SAID), *picture, *foot])


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
    """Validation NDCG against seconds as SVG: a line a training, and from the end of its fit on a level a baseline."""
    metric, rows = found["metrics"][1], [row for row in found["rows"] if "failed" not in row]
    target = io.StringIO()
    # text as shapes: the picture stands alone, and whoever looks at it may lack the font
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
    points = curve(row["runs"][0], 0)
    colour, seconds, values = SERIES[place % len(SERIES)], *_xy(points, metric)
    if len(points) > 1:
        axes.plot(seconds, values, color=colour, label=row["name"])
        return
    axes.plot([seconds[0], last], values * 2, color=colour, linestyle=DASHES[1 + place % 3], linewidth=1.2)
    axes.plot(seconds, values, "o", color=colour, label=row["name"], markeredgecolor=INK, markeredgewidth=0.5)


def _xy(points: Sequence[Mapping[str, float]], metric: str) -> tuple[list[float], list[float]]:
    return [max(point["seconds"], 0.01) for point in points], [point[metric] for point in points]
