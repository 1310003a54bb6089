"""How good the model is: its numbers, against k, by slice, by epoch, and from seed to seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.record import IN_SAMPLE, EvaluationRecord
from evaluation.report.blocks import Block, Cell, Figures, Section, Table, number
from evaluation.report.headline import model_name, ranked_baselines
from evaluation.report.plots import Dot, Line, intervals, lines
from evaluation.report.readings import section
from evaluation.report.sources import Sources, read_json
from evaluation.report.words import as_interval, count, decimal, ends, gap, gap_kind, signed, signed_ends, with_ends
from evaluation.statistics.intervals import Interval

MAX_EPOCHS_DRAWN = 400
ACCURACY = {"recall", "ndcg", "precision", "mrr", "map", "hit_rate"}
MEANINGS = {
    "recall": "share of a user's songs to find that are in the list",
    "ndcg": "the same, early places counting more",
    "precision": "share of the list that was to be found",
    "mrr": "1 / place of the first hit",
    "map": "mean precision at the places of hits",
    "hit_rate": "share of users with a hit",
    "coverage": "share of all songs that are in any list",
    "gini": "0: all songs as often, 1: one song only",
    "novelty": "bits of surprise of a listed song",
    "artist_diversity": "share of pairs in a list without a common artist",
    "embedding_diversity": "1 - mean cosine of the pairs in a list",
    "average_popularity": "train listeners of a listed song",
    "artist_share": "largest share of a list that one artist holds",
}
"""What a newcomer wants to know; the formulas are in docs/metrics.md."""


def numbers(sources: Sources) -> Section:
    """Every metric, beside the baselines."""
    record = sources.record()
    blocks: list[Block] = [Figures(_watched_panels(record, model_name(sources)))] if record.baselines else []
    blocks += _metric_tables(record, model_name(sources))
    if record.conventions:
        blocks.append(_convention_table(record.conventions))
    return section("numbers", blocks)


def against_k(sources: Sources) -> Section:
    """Recall and NDCG as the list grows."""
    ranked = [name for name in ranked_baselines(sources.record()) if name in sources.baselines]
    found = {model_name(sources): sources.evaluation} | {name: sources.baselines[name] for name in ranked}
    curves = {name: read_json(folder / "curves.json", {}) for name, folder in found.items()}
    curves = {name: values for name, values in curves.items() if values}
    if not read_json(sources.evaluation / "curves.json", {}):
        return section("k", absent="This evaluation kept no curves over k.")
    metrics = next(iter(curves.values()))["model"]
    panels = [(f"{metric} against k", _curve(metric, curves)) for metric in metrics]
    return section("k", [Figures(panels)])


def slices(sources: Sources) -> Section:
    """The watched metric in each slice of the users and songs."""
    found = read_json(sources.evaluation / "slices.json", [])
    if not found:
        return section("slices", absent="This evaluation kept no slices.")
    counted = Counter(row["dimension"] for row in found)
    divided = [name for name, slices in counted.items() if slices > 1]
    panels = [(name.capitalize(), _slice_panel(name, place, found)) for place, name in enumerate(divided)]
    return section("slices", [Figures(panels), _slice_table(found)])


def learning_curves(sources: Sources) -> Section:
    """Loss and validation metrics, epoch by epoch."""
    history = read_json(sources.model / "history.json", [])
    results = read_json(sources.model / "results.json", {})
    best = results.get("best_epoch")
    chosen = (
        f"the dotted line is epoch {best}, whose weights are evaluated" if best else "the last weights are evaluated"
    )
    if not history:
        return section("learning", absent="The trainer kept no history.")
    panels = [
        (title, lines(f"epochs-{place}", drawn, "epoch", mark=best, says=f"{title} by epoch"))
        for place, (title, drawn) in enumerate(_by_epoch(history).items())
    ]
    return section("learning", [Figures(panels)], chosen=chosen)


def between_seeds(sources: Sources) -> Section | None:
    """What training with other seeds gives; None for a run of one seed."""
    found = read_json(sources.seeds / "seeds.json", {}) if sources.seeds else {}
    if not found:
        return None
    rows = [_seed_row(name, values) for name, values in found["metrics"].items()]
    head = ("metric", "mean", "95 % interval", "sd between seeds", *(f"seed {seed}" for seed in found["seeds"]))
    blocks: list[Block] = [Table(head, rows, "Metrics over seeds")]
    if found.get("differences"):
        blocks.append(_seed_differences(found["differences"]))
    return section("seeds", blocks, seeds=count(len(found["seeds"])))


def _watched_panels(record: EvaluationRecord, model: str) -> list[tuple[str, str]]:
    watched = record.watched
    ranked = ranked_baselines(record)
    values = [Dot(name, record.baselines[name][watched]) for name in ranked]
    dots = [Dot(model, record.metrics[watched], strong=True), *values]
    gaps = [Dot(name, record.differences[name][watched], strong=True) for name in ranked if name in record.differences]
    return [
        (watched, intervals("watched", dots, watched, says=f"{watched} of the model and each baseline")),
        (
            f"{model} minus baseline",
            intervals("gaps", gaps, f"difference in {watched}", zero=True, says="Model minus baseline"),
        ),
    ]


def _metric_tables(record: EvaluationRecord, model: str) -> list[Table]:
    """Accuracy at the watched k, at the others, and what the lists are like beside being right."""
    users, k = count(record.num_users), f"@{record.k}"
    accurate = [metric for metric in record.metrics if _what(metric) in ACCURACY]
    watched = [metric for metric in accurate if metric.endswith(k)]
    others = [metric for metric in accurate if not metric.endswith(k)]
    beyond = [metric for metric in record.metrics if metric not in accurate]
    tables = [
        _metric_table(record, watched, model, f"Accuracy at {record.k}, {users} users"),
        _metric_table(record, beyond, model, f"Beyond accuracy: what the first {record.k} songs are like"),
        _metric_table(record, others, model, "Accuracy at other lengths of the list", folded=True),
    ]
    return [table for table in tables if table.rows]


def _metric_table(
    record: EvaluationRecord, metrics: Sequence[str], model: str, caption: str, folded: bool = False
) -> Table:
    rows = [_metric_row(record, metric) for metric in metrics]
    return Table(("metric", model, *ranked_baselines(record)), rows, caption, folded)


def _metric_row(record: EvaluationRecord, metric: str) -> list[Cell]:
    value, what = record.metrics[metric], _what(metric)
    strong = "strong" if metric == record.watched else ""
    row = [Cell(metric, strong, details=(MEANINGS.get(what, ""),)), _number_cell(value)]
    for name in ranked_baselines(record):
        difference = record.differences.get(name, {}).get(metric)
        row.append(_number_cell(record.baselines[name].get(metric), difference, judged=what in ACCURACY))
    return row


def _number_cell(value: Interval | None, difference: Interval | None = None, judged: bool = False) -> Cell:
    """A mean, its interval, and the model minus it; green or red only where more is better."""
    if value is None:
        return number("")
    kind = gap_kind(difference) if difference and judged else ""
    below = (ends(value), gap(difference) if difference else "")
    return Cell(decimal(value.mean), f"number below {kind}".strip(), details=below)


def _what(metric: str) -> str:
    """The name without its prefix and k, for example "recall"."""
    return metric.removeprefix(IN_SAMPLE).partition("@")[0]


def _convention_table(conventions: Mapping[str, Mapping[str, Interval]]) -> Table:
    rows = [
        [Cell(convention), Cell(metric), number(with_ends(value))]
        for convention, metrics in conventions.items()
        for metric, value in metrics.items()
    ]
    return Table(("convention", "metric", "value"), rows, "The same lists, counted as other papers count", folded=True)


def _curve(metric: str, curves: Mapping[str, Any]) -> str:
    drawn = [_curve_line(name, values["ks"], values["model"][metric]) for name, values in curves.items()]
    return lines(f"curve-{metric}", drawn, "k", log_x=True, says=f"{metric} against k")


def _curve_line(label: str, ks: Sequence[int], points: Sequence[Sequence[float]]) -> Line:
    mean, low, high = ([float(point[end]) for point in points] for end in range(3))
    return Line(label, ks, mean, low, high)


def _slice_panel(dimension: str, place: int, found: Sequence[Mapping[str, Any]]) -> str:
    rows = [row for row in found if row["dimension"] == dimension]
    dots = [Dot(row["name"], _sure(row["interval"]), strong=True) for row in rows]
    return intervals(f"slice-{place}", dots, rows[0]["metric"], says=f"{rows[0]['metric']} by {dimension}")


def _slice_table(found: Sequence[Mapping[str, Any]]) -> Table:
    head = ("dimension", "slice", "users", "pairs", found[0]["metric"], "model minus baseline", "p after Holm")
    return Table(head, [_slice_row(row) for row in found], "Every slice")


def _slice_row(row: Mapping[str, Any]) -> list[Cell]:
    difference, p = as_interval(row.get("difference")), row.get("p_holm")
    kind = gap_kind(difference) if difference and row["differs"] else ""
    return [
        Cell(row["dimension"]),
        Cell(row["name"], details=(row.get("description", ""),)),
        number(count(row["users"])),
        number(count(row["pairs"])),
        number(with_ends(_sure(row["interval"]))),
        Cell(gap(difference) if difference else "", f"number {kind}".strip(), details=(row.get("baseline") or "",)),
        number("" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"),
    ]


def _by_epoch(history: Sequence[Mapping[str, Any]]) -> dict[str, list[Line]]:
    """Panels by title: what has no k (the losses), recall and NDCG, and the learning rate where it changes."""
    names = [name for name in dict.fromkeys(key for record in history for key in record) if name not in ("epoch", "lr")]
    kept = [line for name in names if (line := _epoch_line(history, name)).x]
    ranking = [line for line in kept if "@" in line.label]
    shown = [line for line in ranking if "recall" in line.label or "ndcg" in line.label] or ranking[:2]
    rate = _epoch_line(history, "lr")
    panels = {
        "Training": [line for line in kept if "@" not in line.label],
        "Validation": sorted(shown, key=lambda line: "recall" not in line.label),
        "Learning rate": [rate] if len(set(rate.y)) > 1 else [],
    }
    return {_panel_title(title, drawn): drawn for title, drawn in panels.items() if drawn}


def _panel_title(title: str, drawn: Sequence[Line]) -> str:
    return f"{title}: {drawn[0].label}" if len(drawn) == 1 and title != "Learning rate" else title


def _epoch_line(history: Sequence[Mapping[str, Any]], name: str) -> Line:
    points = [(record["epoch"], record[name]) for record in history if _is_number(record.get(name))]
    thinned = points[:: 1 + len(points) // MAX_EPOCHS_DRAWN]
    return Line(name, [epoch for epoch, _ in thinned], [value for _, value in thinned])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _seed_row(name: str, values: Mapping[str, Any]) -> list[Cell]:
    found = _sure(values)
    fixed = [
        Cell(name),
        number(decimal(found.mean)),
        number(ends(found)),
        number("" if values["sd"] is None else decimal(values["sd"])),
    ]
    return [*fixed, *(number(decimal(value)) for value in values["per_seed"])]


def _seed_differences(differences: Mapping[str, Mapping[str, Any]]) -> Table:
    metrics = dict.fromkeys(metric for found in differences.values() for metric in found)
    rows = [
        [Cell(metric), *(_gap_cell(found.get(metric), metric) for found in differences.values())] for metric in metrics
    ]
    return Table(("metric", *differences), rows, "Model minus baseline, over users and seeds")


def _gap_cell(values: Mapping[str, Any] | None, metric: str) -> Cell:
    if values is None:
        return number("")
    found = _sure(values)
    kind = gap_kind(found) if _what(metric) in ACCURACY else ""
    return Cell(signed(found.mean), f"number {kind}".strip(), details=(signed_ends(found),))


def _sure(values: Mapping[str, Any]) -> Interval:
    return Interval(float(values["mean"]), float(values["low"]), float(values["high"]))
