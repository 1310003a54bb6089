"""The sections on the model's quality: its numbers, between seeds, against k, by slice, and by epoch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.record import IN_SAMPLE, EvaluationRecord
from evaluation.report.blocks import Block, Cell, Figures, Section, Table, number
from evaluation.report.headline import model_name, ranked_baselines
from evaluation.report.number_format import (
    as_interval,
    count,
    decimal,
    ends,
    gap,
    gap_kind,
    read_interval,
    signed,
    signed_ends,
    with_ends,
)
from evaluation.report.plots import Dot, Line, intervals, lines
from evaluation.report.section_texts import section
from evaluation.report.sources import Sources, read_json
from evaluation.statistics.intervals import Interval

MAX_EPOCHS_DRAWN = 400
ACCURACY = {"recall", "ndcg", "precision", "mrr", "map", "hit_rate"}
MEANINGS = {
    "recall": "share of a user's relevant songs that are in the list",
    "ndcg": "the same, but early places count more",
    "precision": "share of the list that is relevant",
    "mrr": "1 / place of the first hit",
    "map": "mean precision at the places of hits",
    "hit_rate": "share of users with a hit",
    "coverage": "share of all songs that are in any list",
    "gini": "0: all songs equally often, 1: one song only",
    "novelty": "self-information of a listed song, in bits",
    "artist_diversity": "share of pairs in a list without a common artist",
    "embedding_diversity": "1 - mean cosine of the pairs in a list",
    "average_popularity": "train listeners of a listed song",
    "artist_share": "largest share of a list by one artist",
}
"""Short explanations for a newcomer; the formulas are in docs/metrics.md."""


def numbers(sources: Sources) -> Section:
    """Show every metric of the model and of the baselines."""
    record = sources.record()
    blocks: list[Block] = [Figures(_watched_panels(record, model_name(sources)))] if record.baselines else []
    blocks += _metric_tables(record, model_name(sources))
    if record.conventions:
        blocks.append(_convention_table(record.conventions))
    return section("numbers", blocks)


def against_k(sources: Sources) -> Section:
    """Show recall and NDCG against the length of the list."""
    ranked = [name for name in ranked_baselines(sources.record()) if name in sources.baselines]
    folders = {model_name(sources): sources.evaluation} | {name: sources.baselines[name] for name in ranked}
    curves = {name: read_json(folder / "curves.json", {}) for name, folder in folders.items()}
    curves = {name: values for name, values in curves.items() if values}
    if not read_json(sources.evaluation / "curves.json", {}):
        return section("k", absent="This evaluation has no curves over k.")
    panels = []
    for metric in next(iter(curves.values()))["model"]:
        drawn = [_curve_line(name, values["ks"], values["model"][metric]) for name, values in curves.items()]
        drawing = lines(f"curve-{metric}", drawn, "k", log_x=True, alt_text=f"{metric} against k")
        panels.append((f"{metric} against k", drawing))
    return section("k", [Figures(panels)])


def slices(sources: Sources) -> Section:
    """Show the watched metric in each slice of the users and songs."""
    found = read_json(sources.evaluation / "slices.json", [])
    if not found:
        return section("slices", absent="This evaluation has no slices.")
    sizes = Counter(row["dimension"] for row in found)
    dimensions = [name for name, size in sizes.items() if size > 1]
    panels = [(name.capitalize(), _slice_panel(name, number, found)) for number, name in enumerate(dimensions)]
    head = ("dimension", "slice", "users", "pairs", found[0]["metric"], "model minus baseline", "p after Holm")
    return section("slices", [Figures(panels), Table(head, [_slice_row(row) for row in found], "Every slice")])


def learning_curves(sources: Sources) -> Section:
    """Show loss and validation metrics by epoch."""
    history = read_json(sources.model / "history.json", [])
    results = read_json(sources.model / "results.json", {})
    best = results.get("best_epoch")
    chosen = (
        f"the dotted line is epoch {best}, whose weights are evaluated" if best else "the last weights are evaluated"
    )
    if not history:
        return section("learning", absent="The trainer wrote no history.")
    panels = [
        (title, lines(f"epochs-{number}", drawn, "epoch", mark=best, alt_text=f"{title} by epoch"))
        for number, (title, drawn) in enumerate(_by_epoch(history).items())
    ]
    return section("learning", [Figures(panels)], chosen=chosen)


def between_seeds(sources: Sources) -> Section | None:
    """Show the metrics over several seeds; None for a run of one seed."""
    found = read_json(sources.seeds / "seeds.json", {}) if sources.seeds else {}
    if not found:
        return None
    rows = [_seed_row(name, values) for name, values in found["metrics"].items()]
    head = ("metric", "mean", "95 % interval", "sd between seeds", *(f"seed {seed}" for seed in found["seeds"]))
    blocks: list[Block] = [Table(head, rows, "Metrics over seeds")]
    if found.get("differences"):
        blocks.append(_seed_difference_table(found["differences"]))
    return section("seeds", blocks, seeds=count(len(found["seeds"])))


def _watched_panels(record: EvaluationRecord, model: str) -> list[tuple[str, str]]:
    watched = record.watched
    ranked = ranked_baselines(record)
    values = [Dot(name, record.baselines[name][watched]) for name in ranked]
    dots = [Dot(model, record.metrics[watched], strong=True), *values]
    gaps = [Dot(name, record.differences[name][watched], strong=True) for name in ranked if name in record.differences]
    return [
        (watched, intervals("watched", dots, watched, alt_text=f"{watched} of the model and each baseline")),
        (
            f"{model} minus baseline",
            intervals("gaps", gaps, f"difference in {watched}", zero=True, alt_text="Model minus baseline"),
        ),
    ]


def _metric_tables(record: EvaluationRecord, model: str) -> list[Table]:
    """Create tables of accuracy at the watched k, of the beyond-accuracy metrics, and of accuracy at other ks."""
    users, k = count(record.num_users), f"@{record.k}"
    accuracy = [metric for metric in record.metrics if _base_name(metric) in ACCURACY]
    watched = [metric for metric in accuracy if metric.endswith(k)]
    others = [metric for metric in accuracy if not metric.endswith(k)]
    beyond = [metric for metric in record.metrics if metric not in accuracy]
    tables = [
        _metric_table(record, watched, model, f"Accuracy at {record.k}, {users} users"),
        _metric_table(record, beyond, model, f"Beyond accuracy: properties of the first {record.k} songs"),
        _metric_table(record, others, model, "Accuracy at other lengths of the list", folded=True),
    ]
    return [table for table in tables if table.rows]


def _metric_table(
    record: EvaluationRecord, metrics: Sequence[str], model: str, caption: str, folded: bool = False
) -> Table:
    rows = [_metric_row(record, metric) for metric in metrics]
    return Table(("metric", model, *ranked_baselines(record)), rows, caption, folded)


def _metric_row(record: EvaluationRecord, metric: str) -> list[Cell]:
    value, name = record.metrics[metric], _base_name(metric)
    strong = "strong" if metric == record.watched else ""
    row = [Cell(metric, strong, details=(MEANINGS.get(name, ""),)), _number_cell(value)]
    for baseline in ranked_baselines(record):
        difference = record.differences.get(baseline, {}).get(metric)
        row.append(_number_cell(record.baselines[baseline].get(metric), difference, coloured=name in ACCURACY))
    return row


def _number_cell(value: Interval | None, difference: Interval | None = None, coloured: bool = False) -> Cell:
    """Create a cell with a mean, its interval, and the model minus it; coloured only if a higher value is better."""
    if value is None:
        return number("")
    kind = gap_kind(difference) if difference and coloured else ""
    below = (ends(value), gap(difference) if difference else "")
    return Cell(decimal(value.mean), f"number below {kind}".strip(), details=below)


def _base_name(metric: str) -> str:
    """Return the name without its prefix and k, for example "recall"."""
    return metric.removeprefix(IN_SAMPLE).partition("@")[0]


def _convention_table(conventions: Mapping[str, Mapping[str, Interval]]) -> Table:
    rows = [
        [Cell(convention), Cell(metric), number(with_ends(value))]
        for convention, metrics in conventions.items()
        for metric, value in metrics.items()
    ]
    return Table(("convention", "metric", "value"), rows, "The same lists, by the definitions of papers", folded=True)


def _curve_line(label: str, ks: Sequence[int], points: Sequence[Sequence[float]]) -> Line:
    mean, low, high = ([float(point[end]) for point in points] for end in range(3))
    return Line(label, ks, mean, low, high)


def _slice_panel(dimension: str, number: int, found: Sequence[Mapping[str, Any]]) -> str:
    rows = [row for row in found if row["dimension"] == dimension]
    dots = [Dot(row["name"], read_interval(row["interval"]), strong=True) for row in rows]
    return intervals(f"slice-{number}", dots, rows[0]["metric"], alt_text=f"{rows[0]['metric']} by {dimension}")


def _slice_row(row: Mapping[str, Any]) -> list[Cell]:
    difference, p = as_interval(row.get("difference")), row.get("p_holm")
    kind = gap_kind(difference) if difference and row["differs"] else ""
    return [
        Cell(row["dimension"]),
        Cell(row["name"], details=(row.get("description", ""),)),
        number(count(row["users"])),
        number(count(row["pairs"])),
        number(with_ends(read_interval(row["interval"]))),
        Cell(gap(difference) if difference else "", f"number {kind}".strip(), details=(row.get("baseline") or "",)),
        number("" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"),
    ]


def _by_epoch(history: Sequence[Mapping[str, Any]]) -> dict[str, list[Line]]:
    """Group the lines by panel title: metrics without k (the losses), recall and NDCG, and a varying learning rate."""
    names = [name for name in dict.fromkeys(key for record in history for key in record) if name not in ("epoch", "lr")]
    all_lines = [line for name in names if (line := _epoch_line(history, name)).x]
    at_k = [line for line in all_lines if "@" in line.label]
    shown = [line for line in at_k if "recall" in line.label or "ndcg" in line.label] or at_k[:2]
    rate = _epoch_line(history, "lr")
    panels = {
        "Training": [line for line in all_lines if "@" not in line.label],
        "Validation": sorted(shown, key=lambda line: "recall" not in line.label),
        "Learning rate": [rate] if len(set(rate.y)) > 1 else [],
    }
    titled = {}
    for title, drawn in panels.items():
        if drawn:
            alone = len(drawn) == 1 and title != "Learning rate"
            titled[f"{title}: {drawn[0].label}" if alone else title] = drawn
    return titled


def _epoch_line(history: Sequence[Mapping[str, Any]], name: str) -> Line:
    values = [(record["epoch"], record.get(name)) for record in history]
    points = [(epoch, value) for epoch, value in values if isinstance(value, int | float) and math.isfinite(value)]
    thinned = points[:: 1 + len(points) // MAX_EPOCHS_DRAWN]
    return Line(name, [epoch for epoch, _ in thinned], [value for _, value in thinned])


def _seed_row(name: str, values: Mapping[str, Any]) -> list[Cell]:
    interval = read_interval(values)
    fixed = [
        Cell(name),
        number(decimal(interval.mean)),
        number(ends(interval)),
        number("" if values["sd"] is None else decimal(values["sd"])),
    ]
    return [*fixed, *(number(decimal(value)) for value in values["per_seed"])]


def _seed_difference_table(differences: Mapping[str, Mapping[str, Any]]) -> Table:
    metrics = dict.fromkeys(metric for found in differences.values() for metric in found)
    rows = []
    for metric in metrics:
        cells = [_difference_cell(found.get(metric), metric) for found in differences.values()]
        rows.append([Cell(metric), *cells])
    return Table(("metric", *differences), rows, "Model minus baseline, over users and seeds")


def _difference_cell(values: Mapping[str, Any] | None, metric: str) -> Cell:
    if values is None:
        return number("")
    difference = read_interval(values)
    kind = gap_kind(difference) if _base_name(metric) in ACCURACY else ""
    return Cell(signed(difference.mean), f"number {kind}".strip(), details=(signed_ends(difference),))
