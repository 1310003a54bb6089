"""Which songs are recommended, against which are listened to: shares of equal slices of the train listens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

THIRDS = ("head", "middle", "tail")


def popularity_groups(listeners: np.ndarray, count: int) -> np.ndarray:
    """(S,) the group of each song, 0 the most popular, such that each holds about as many train listens.

    Songs with as many listeners are never parted: all go where the middle of their listens lies, so a group may be
    larger than another, or empty. Songs without listeners are in the last one.

    Args:
        listeners: (S,) distinct train listeners of each song.
        count: number of groups.
    """
    levels, level = np.unique(-listeners, return_inverse=True)  # most popular first
    held = np.bincount(level, weights=listeners, minlength=len(levels))
    middle = (np.cumsum(held) - held / 2) / max(1, held.sum())
    group = np.minimum((count * middle).astype(np.int64), count - 1)
    group[levels == 0] = count - 1
    return group[level]


def exposure(items: np.ndarray, relevant: np.ndarray, listeners: np.ndarray, k: int, part: str) -> dict[str, Any]:
    """What share of the recommended places goes to songs of each popularity, beside the listens of train and part.

    Args:
        items: (N, k) listed songs, -1 for an empty place.
        relevant: (R,) the song of each relevant pair of the same users.
        listeners: (S,) distinct train listeners.
        k, part: what was listed, for the reader.

    Returns:
        plain JSON: ``groups`` (head, middle, tail: a third of the train listens each) and ``tenths``, each a list of
        {name, songs, fewest_listeners, most_listeners, places, train_listens, relevant_listens}, of which the last
        three are shares that sum to 1.
    """
    listed = np.bincount(items[items >= 0], minlength=len(listeners))
    wanted = np.bincount(relevant, minlength=len(listeners))
    tables = {"places": listed, "train_listens": listeners, "relevant_listens": wanted}
    tenths = tuple(f"tenth {number}" for number in range(1, 11))
    return {
        "k": k,
        "part": part,
        "groups": _shares(popularity_groups(listeners, 3), THIRDS, listeners, tables),
        "tenths": _shares(popularity_groups(listeners, 10), tenths, listeners, tables),
    }


def write_exposure(path: Path, found: dict[str, Any]) -> None:
    """Write it as JSON; the same content gives the same bytes."""
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _shares(
    group: np.ndarray, names: Sequence[str], listeners: np.ndarray, tables: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    rows = []
    for number, name in enumerate(names):
        inside = group == number
        if not inside.any():
            continue
        bounds = {"fewest_listeners": int(listeners[inside].min()), "most_listeners": int(listeners[inside].max())}
        shares = {column: float(table[inside].sum() / max(1, table.sum())) for column, table in tables.items()}
        rows.append({"name": name, "songs": int(inside.sum()), **bounds, **shares})
    return rows
