"""Compare which songs are recommended with which songs people listen to, by the popularity of the songs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

THIRDS = ("head", "middle", "tail")


def popularity_groups(listeners: np.ndarray, count: int) -> np.ndarray:
    """Divide songs into groups that hold about as many train listens each; return the group of each song (S,).

    Group 0 has the most popular songs. Songs with equally many listeners stay together: all go into the group in which
    the middle of their listens lies. So groups may differ in size, or be empty. Songs without listeners are in the
    last group.

    Args:
        listeners: (S,) distinct train listeners of each song.
        count: number of groups.
    """
    levels, level = np.unique(-listeners, return_inverse=True)  # most popular first
    listens = np.bincount(level, weights=listeners, minlength=len(levels))
    middle = (np.cumsum(listens) - listens / 2) / max(1, listens.sum())
    group = np.minimum((count * middle).astype(np.int64), count - 1)
    group[levels == 0] = count - 1
    return group[level]


def exposure(items: np.ndarray, relevant: np.ndarray, listeners: np.ndarray, k: int, part: str) -> dict[str, Any]:
    """Compute the share of recommended places by popularity, and the shares of train listens and relevant listens.

    Args:
        items: (N, k) listed songs, -1 for an empty place.
        relevant: (R,) the song of each relevant pair of the same users.
        listeners: (S,) distinct train listeners.
        k, part: list length and part of the evaluation, copied into the result.

    Returns:
        plain JSON: ``groups`` (head, middle, tail: a third of the train listens each) and ``tenths``. Each is a list of
        {name, songs, fewest_listeners, most_listeners, places, train_listens, relevant_listens}; the last three are
        shares that sum to 1.
    """
    places = np.bincount(items[items >= 0], minlength=len(listeners))
    relevant_listens = np.bincount(relevant, minlength=len(listeners))
    counts = {"places": places, "train_listens": listeners, "relevant_listens": relevant_listens}
    tenths = tuple(f"tenth {number}" for number in range(1, 11))
    return {
        "k": k,
        "part": part,
        "groups": _shares(popularity_groups(listeners, 3), THIRDS, listeners, counts),
        "tenths": _shares(popularity_groups(listeners, 10), tenths, listeners, counts),
    }


def write_exposure(path: Path, found: dict[str, Any]) -> None:
    """Write the exposure as JSON; the same content gives the same bytes."""
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _shares(
    group: np.ndarray, names: Sequence[str], listeners: np.ndarray, counts: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    rows = []
    for number, name in enumerate(names):
        inside = group == number
        if not inside.any():
            continue
        bounds = {"fewest_listeners": int(listeners[inside].min()), "most_listeners": int(listeners[inside].max())}
        shares = {column: float(count[inside].sum() / max(1, count.sum())) for column, count in counts.items()}
        rows.append({"name": name, "songs": int(inside.sum()), **bounds, **shares})
    return rows
