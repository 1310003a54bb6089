"""Titles of the sections, and for each the sentence that says how to read it."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.report.blocks import Block, Section

READINGS = {
    "numbers": (
        "Numbers",
        "A dot is the mean over users, its bar the 95 % bootstrap interval. Differences are measured on the same "
        "users; one is green or red where its whole interval lies on one side of zero.",
    ),
    "seeds": (
        "Between seeds",
        "The same configuration was trained with {seeds} seeds. The intervals cover the choice of users and of the "
        "seed; sd is the standard deviation between seeds, and a difference of that size is noise.",
    ),
    "k": (
        "Metric against k",
        "How the metrics grow with the length k of the list, on a scale where each doubling is as wide as the next. "
        "The band is the model's 95 % interval over users.",
    ),
    "slices": (
        "Slices",
        "The model among some of the users or listens only, with 95 % intervals. The table compares it with the best "
        "baseline there; a difference is coloured where chance alone would rarely give it (p below 0.05 after Holm's "
        "correction for the number of slices).",
    ),
    "popularity": (
        "Popularity",
        "Songs in order of their train listeners, in groups that hold equal shares of the train listens. Where the "
        "first {k} places stand above the listens, the model shows such songs more often than people play them.",
    ),
    "listeners": (
        "A dozen listeners",
        "Nobody was picked: one user is drawn by chance from each twelfth of those measured, from few songs to many. A "
        "check marks a recommended song that {found}.",
    ),
    "learning": (
        "Learning curves",
        "A point is an epoch; {chosen}. Metrics here are measured while training, on a sample of users.",
    ),
    "gate": (
        "Gate",
        "The gate decides whether a model takes the champion's place. These are the numbers that it looked at; "
        "differences are paired by user.",
    ),
    "audit": (
        "Audit of leaks",
        "Each check looks for held-out listens where training could see them; a run with a leak is refused.",
    ),
    "data": (
        "Data",
        "Rows read are kept, rejected, doubled, or dropped by a rule. In the pictures a bar counts degrees up to twice "
        "those of the bar before; a long slope to the right is the long tail.",
    ),
    "configs": (
        "Configuration",
        "Settings of the model and its trainer are complete, defaults included; of the other stages, what is part of "
        "their key.",
    ),
    "lineage": (
        "Lineage",
        "Each line is a SHA-256 over contents, so the same digest is the same data; a stage's key covers everything "
        "that its result was made from, code included.",
    ),
    "stages": (
        "Stages",
        "Time and peak memory of each stage when it last ran; a stage that this run took from the cache shows the run "
        "that computed it.",
    ),
}


def section(anchor: str, blocks: Sequence[Block] = (), absent: str = "", **words: str) -> Section:
    """A section under its title, with its sentence.

    Args:
        absent: why there is nothing to show.
        words: what the sentence leaves open.
    """
    title, reading = READINGS[anchor]
    return Section(anchor, title, "" if absent else reading.format(**words), blocks, absent)
