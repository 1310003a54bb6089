"""The section on popularity: how popular the recommended songs are, compared with the songs that people listen to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.report.blocks import Cell, Figures, Section, Table, number
from evaluation.report.number_format import count, percent
from evaluation.report.plots import Line, lines, shares
from evaluation.report.section_texts import section
from evaluation.report.sources import Sources, read_json

Group = Mapping[str, Any]


def popularity(sources: Sources) -> Section:
    """Show the shares of recommended places, of train listens and of held-out listens, by the popularity of songs."""
    found = read_json(sources.evaluation / "exposure.json", {})
    if not found:
        return section("popularity", absent="This evaluation has no shares by popularity.")
    labels = {"places": f"first {found['k']} places", "train_listens": "train listens"}
    if found["part"] != "train":
        labels["relevant_listens"] = f"{found['part']} listens"
    panels = [
        ("Head, middle and tail", _plot_groups(found["groups"], labels)),
        ("Tenths of the train listens", _plot_tenths(found["tenths"], labels)),
    ]
    return section("popularity", [Figures(panels), _table(found["groups"], labels)], k=str(found["k"]))


def _plot_groups(groups: Sequence[Group], labels: Mapping[str, str]) -> str:
    values = {label: [group[key] for group in groups] for key, label in labels.items()}
    return shares("thirds", [group["name"] for group in groups], values, alt_text="Shares of head, middle and tail")


def _plot_tenths(tenths: Sequence[Group], labels: Mapping[str, str]) -> str:
    numbers = [int(tenth["name"].split()[-1]) for tenth in tenths]
    drawn = [Line(label, numbers, [tenth[key] for tenth in tenths]) for key, label in labels.items()]
    x_label = "tenth of the train listens, most popular songs first"
    return lines("tenths", drawn, x_label, share=True, alt_text="Shares of tenths by popularity")


def _table(groups: Sequence[Group], labels: Mapping[str, str]) -> Table:
    rows = [
        [
            Cell(group["name"]),
            number(count(group["songs"])),
            number(f"{count(group['fewest_listeners'])} to {count(group['most_listeners'])}"),
            *(number(percent(group[key])) for key in labels),
        ]
        for group in groups
    ]
    return Table(("group", "songs", "train listeners of a song", *labels.values()), rows, "Shares by popularity")
