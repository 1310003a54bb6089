"""Whether there are pairs that neither of two models has seen, by what their bundles record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.bundle.manifest import TWIN, Manifest

FOLD = ("salt", "val_ratio", "test_ratio")
"""Keys of a random split that decide which pairs are held out, today and on any other day."""

Split = Mapping[str, Any]


def why_not_clean(challenger: Manifest, champion: Manifest) -> str:
    """Why the challenger's test pairs may be known to one of the two; empty where neither can have seen them.

    They are clean where both stand on one and the same split, where both held out the same salted fold, or where the
    champion's data ended before the challenger's test days begin. The weights that a model started from have to be as
    clean as the model itself.
    """
    if seen := _saw_everything(challenger, "the challenger") or _saw_everything(champion, "the champion"):
        return seen
    own, *warmed = challenger.facts.seen_splits
    other, *others = champion.facts.seen_splits
    same = challenger.facts.split_digest == champion.facts.split_digest
    if problem := "" if same else _problem(own, other, "the champion"):
        return problem
    problems = (_problem(own, split, "a model that one of them started from") for split in (*warmed, *others))
    return next(filter(None, problems), "")


def _saw_everything(model: Manifest, who: str) -> str:
    if model.facts.in_sample:
        return f"{who} was trained on all listens"
    if model.facts.refit and TWIN not in model.files:
        return f"{who} was trained once more on all listens, and its twin is not there"
    return ""


def _problem(own: Split, other: Split, who: str) -> str:
    strategy = own.get("strategy")
    if strategy != other.get("strategy"):
        return f"the challenger's split is {strategy}, and that of {who} is {other.get('strategy')}"
    if strategy == "random":
        return _other_fold(own, other, who)
    if strategy == "temporal":
        return _later_cut(own, other, who)
    return f"{who} stands on another {strategy} split"


def _other_fold(own: Split, other: Split, who: str) -> str:
    for key in FOLD:
        if own.get(key) is None or own[key] != other.get(key):
            return f"the challenger's split has {key} {own.get(key)}, and that of {who} has {other.get(key)}"
    return ""


def _later_cut(own: Split, other: Split, who: str) -> str:
    ours, theirs = own.get("test_from"), other.get("test_from")
    if not ours or not theirs:
        return f"the first test day of {who if ours else 'the challenger'} is not recorded"
    if str(theirs) > str(ours):
        return f"{who} has seen days up to {theirs}, and the challenger's test days begin on {ours}"
    return ""
