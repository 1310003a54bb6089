"""Titles of the report's sections, and a text for each that says how to read it."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.report.blocks import Block, Section

SECTION_TEXTS = {
    "numbers": (
        "Numbers",
        "A dot is the mean over users; its bar is the 95 % bootstrap interval. Differences are measured on the same "
        "users. A difference is green or red if its whole interval lies on one side of zero.",
    ),
    "seeds": (
        "Between seeds",
        "The same configuration was trained with {seeds} seeds. The intervals cover the choice of users and of the "
        "seed. sd is the standard deviation between seeds: a difference of this size is noise.",
    ),
    "k": (
        "Metric against k",
        "The metrics against the length k of the list. Each doubling of k has the same width. The band is the model's "
        "95 % interval over users.",
    ),
    "slices": (
        "Slices",
        "The model on some of the users or listens only, with 95 % intervals. The table compares it with the best "
        "baseline there. A difference is coloured if it is significant (p below 0.05 after Holm's correction for the "
        "number of slices).",
    ),
    "popularity": (
        "Popularity",
        "Songs in order of their train listeners, in groups with equal shares of the train listens. If the first {k} "
        "places are above the listens, the model shows such songs more often than people play them.",
    ),
    "listeners": (
        "A dozen listeners",
        "These users are drawn at random: one from each twelfth of the measured users, from few songs to many. A check "
        "marks a recommended song that {found}.",
    ),
    "learning": (
        "Learning curves",
        "A point is an epoch; {chosen}. These metrics are measured during training, on a sample of users.",
    ),
    "gate": (
        "Gate",
        "The gate decides if a model replaces the champion. These are the numbers that it used; differences are paired "
        "by user.",
    ),
    "audit": (
        "Audit of leaks",
        "Each check looks for held-out listens that training could see. A run with a leak is refused.",
    ),
    "data": (
        "Data",
        "Each row of the log is kept, rejected, a duplicate, or dropped by a rule. In the pictures, each bar covers "
        "degrees up to twice those of the bar before; a long slope to the right is the long tail.",
    ),
    "configs": (
        "Configuration",
        "All settings of the model and its trainer, with defaults. For the other stages: the settings that are part of "
        "their key.",
    ),
    "lineage": (
        "Lineage",
        "Each line is a SHA-256 of contents: the same digest is the same data. The key of a stage covers everything "
        "that its result was made from, code included.",
    ),
    "stages": (
        "Stages",
        "Time and peak memory of each stage when it last ran. If this run took a stage from the cache, the numbers are "
        "those of the run that computed it.",
    ),
}


def section(anchor: str, blocks: Sequence[Block] = (), absent: str = "", **values: str) -> Section:
    """Create a section with its title and text.

    Args:
        anchor: key of ``SECTION_TEXTS``.
        blocks: the contents.
        absent: why there is nothing to show; empty if there is something.
        values: values for the braces in the text.
    """
    title, text = SECTION_TEXTS[anchor]
    return Section(anchor, title, "" if absent else text.format(**values), blocks, absent)
