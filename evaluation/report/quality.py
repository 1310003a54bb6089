"""How good the model is: its numbers, against k, by slice, by epoch, and from seed to seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.intervals import Interval
from evaluation.record import EvaluationRecord
from evaluation.report.blocks import Block, Cell, Figures, Section, Table, number
from evaluation.report.headline import model_name
from evaluation.report.plots import Dot, Line, intervals, lines
from evaluation.report.readings import section
from evaluation.report.sources import Sources, read_json
from evaluation.report.words import as_interval, count, decimal, ends, gap, gap_kind, with_ends

MAX_EPOCHS_DRAWN = 400


def numbers(sources: Sources) -> Section:
    """Every metric, beside the baselines."""
    record = sources.record()
    blocks: list[Block] = [Figures(_watched_panels(record, model_name(sources)))] if record.baselines else []
    blocks.append(_metric_table(record, model_name(sources)))
    if conventions := getattr(record, "conventions", {}):
        blocks.append(_convention_table(conventions))
    return section("numbers", blocks)


def against_k(sources: Sources) -> Section:
    """Recall and NDCG as the list grows."""
    found = {model_name(sources): sources.evaluation} | dict(sources.baselines)
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
    dimensions = list(dict.fromkeys(row["dimension"] for row in found))
    panels = [(name, _slice_panel(name, place, found)) for place, name in enumerate(dimensions)]
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
        blocks.append(_seed_differences(found))
    return section("seeds", blocks, seeds=count(len(found["seeds"])))


def _watched_panels(record: EvaluationRecord, model: str) -> list[tuple[str, str]]:
    watched = record.watched
    values = {name: metrics[watched] for name, metrics in record.baselines.items() if watched in metrics}
    ordered = sorted(values.items(), key=lambda item: -item[1].mean)
    dots = [Dot(model, record.metrics[watched], strong=True), *(Dot(name, value) for name, value in ordered)]
    gaps = [
        Dot(name, record.differences[name][watched], strong=True) for name, _ in ordered if name in record.differences
    ]
    return [
        (watched, intervals("watched", dots, watched, says=f"{watched} of the model and each baseline")),
        (
            f"{model} minus baseline",
            intervals("gaps", gaps, f"difference in {watched}", zero=True, says="Model minus baseline"),
        ),
    ]


def _metric_table(record: EvaluationRecord, model: str) -> Table:
    rows = [_metric_row(record, metric, value) for metric, value in record.metrics.items()]
    caption = f"All metrics on {count(record.num_users)} users: mean (95 % interval), and model minus baseline"
    return Table(("metric", model, *record.baselines), rows, caption)


def _metric_row(record: EvaluationRecord, metric: str, value: Interval) -> list[Cell]:
    row = [Cell(metric, "strong" if metric == record.watched else ""), number(with_ends(value))]
    for name, metrics in record.baselines.items():
        difference = record.differences.get(name, {}).get(metric)
        beside = with_ends(metrics[metric]) if metric in metrics else ""
        row.append(
            Cell(
                beside,
                f"number {gap_kind(difference) if difference else ''}",
                detail=gap(difference) if difference else "",
            )
        )
    return row


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
    head = ("dimension", "slice", "users", "pairs", "metric", "model", "minus baseline", "p after Holm")
    return Table(head, [_slice_row(row) for row in found], "Every slice")


def _slice_row(row: Mapping[str, Any]) -> list[Cell]:
    difference, p = as_interval(row.get("difference")), row.get("p_holm")
    against = f"{gap(difference)}, {row['baseline']}" if difference else ""
    kind = gap_kind(difference) if difference and row.get("differs") else ""
    return [
        Cell(row["dimension"]),
        Cell(row["name"]),
        number(count(row["users"])),
        number(count(row["pairs"])),
        Cell(row["metric"]),
        number(with_ends(_sure(row["interval"]))),
        number(against, kind),
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
        "Validation": shown,
        "Learning rate": [rate] if len(set(rate.y)) > 1 else [],
    }
    return {title: drawn for title, drawn in panels.items() if drawn}


def _epoch_line(history: Sequence[Mapping[str, Any]], name: str) -> Line:
    points = [(record["epoch"], record[name]) for record in history if _is_number(record.get(name))]
    thinned = points[:: 1 + len(points) // MAX_EPOCHS_DRAWN]
    return Line(name, [epoch for epoch, _ in thinned], [value for _, value in thinned])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _seed_row(name: str, values: Mapping[str, Any]) -> list[Cell]:
    found = _sure(values)
    fixed = [Cell(name), number(decimal(found.mean)), number(ends(found)), number(decimal(values["sd"]))]
    return [*fixed, *(number(decimal(value)) for value in values["per_seed"])]


def _seed_differences(found: Mapping[str, Any]) -> Table:
    rows = [
        [Cell(baseline), Cell(metric), number(gap(_sure(values)), gap_kind(_sure(values)))]
        for baseline, metrics in found["differences"].items()
        for metric, values in metrics.items()
    ]
    return Table(("baseline", "metric", "model minus baseline"), rows, "Differences over users and seeds")


def _sure(values: Mapping[str, Any]) -> Interval:
    return Interval(float(values["mean"]), float(values["low"]), float(values["high"]))
