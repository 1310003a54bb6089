"""How popular the recommended songs are, beside those that people listen to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.report.blocks import Cell, Figures, Section, Table, number
from evaluation.report.plots import Line, lines, shares
from evaluation.report.readings import section
from evaluation.report.sources import Sources, read_json
from evaluation.report.words import count, percent

Group = Mapping[str, Any]


def popularity(sources: Sources) -> Section:
    """Shares of recommended places, of train listens and of the held-out ones, by the popularity of the songs."""
    found = read_json(sources.evaluation / "exposure.json", {})
    if not found:
        return section("popularity", absent="This evaluation kept no shares of popularity.")
    series = _series(found)
    panels = [
        ("Head, middle and tail", _thirds(found["groups"], series)),
        ("Tenths of the train listens", _tenths(found["tenths"], series)),
    ]
    return section("popularity", [Figures(panels), _table(found["groups"], series)], k=str(found["k"]))


def _series(found: Mapping[str, Any]) -> dict[str, str]:
    """Key of a share to what it is called."""
    named = {"places": f"first {found['k']} places", "train_listens": "train listens"}
    return named if found["part"] == "train" else {**named, "relevant_listens": f"{found['part']} listens"}


def _thirds(groups: Sequence[Group], series: Mapping[str, str]) -> str:
    values = {label: [group[key] for group in groups] for key, label in series.items()}
    return shares("thirds", [group["name"] for group in groups], values, says="Shares of head, middle and tail")


def _tenths(groups: Sequence[Group], series: Mapping[str, str]) -> str:
    places = [int(group["name"].split()[-1]) for group in groups]
    drawn = [Line(label, places, [group[key] for group in groups]) for key, label in series.items()]
    label = "tenth of the train listens, most popular songs first"
    return lines("tenths", drawn, label, share=True, says="Shares of tenths by popularity")


def _table(groups: Sequence[Group], series: Mapping[str, str]) -> Table:
    rows = [
        [
            Cell(group["name"]),
            number(count(group["songs"])),
            number(f"{count(group['fewest_listeners'])} to {count(group['most_listeners'])}"),
            *(number(percent(group[key])) for key in series),
        ]
        for group in groups
    ]
    return Table(("group", "songs", "train listeners of a song", *series.values()), rows, "Shares by popularity")
