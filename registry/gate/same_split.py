"""Tells from two manifests if there are pairs that neither model has seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.bundle.manifest import Manifest

FOLD = ("salt", "val_ratio", "test_ratio")
"""Keys of a random split that decide which pairs are held out, today and on any other day."""

Split = Mapping[str, Any]


def why_not_clean(challenger: Manifest, champion: Manifest) -> str:
    """Return why one of the two models may know the challenger's test pairs; empty if neither can have seen them.

    Neither can if both have the same split, if both held out the same salted fold, or if the champion's data ended
    before the challenger's test days begin. The same is asked of the models whose weights they started from.
    """
    if seen := _saw_everything(challenger, "the challenger") or _saw_everything(champion, "the champion"):
        return seen
    own, *own_ancestors = challenger.facts.seen_splits
    other, *other_ancestors = champion.facts.seen_splits
    same = challenger.facts.split_digest == champion.facts.split_digest
    if problem := "" if same else _problem(own, other, "the champion"):
        return problem
    ancestors = (*own_ancestors, *other_ancestors)
    problems = (_problem(own, split, "a model that one of them started from") for split in ancestors)
    return next(filter(None, problems), "")


def _saw_everything(model: Manifest, who: str) -> str:
    if model.facts.in_sample:
        return f"{who} was trained on all listens"
    if model.facts.refit and not model.has_evaluated_model:
        return f"{who} was trained once more on all listens, and its bundle lacks the model that was evaluated"
    return ""


def _problem(own: Split, other: Split, who: str) -> str:
    strategy = own.get("strategy")
    if strategy != other.get("strategy"):
        return f"the challenger's split is {strategy}, and that of {who} is {other.get('strategy')}"
    if strategy == "random":
        return _other_fold(own, other, who)
    if strategy == "temporal":
        return _later_cut(own, other, who)
    return f"{who} has another {strategy} split"


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
