"""Whether what train edges carry comes from train rows alone: everything is computed anew and compared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import LISTENS
from data.listens import Ints, Listens, Mask
from data.weights import WeightConfig
from evaluation.audit.edges import is_temporal
from evaluation.audit.pairs import GraphPairs
from evaluation.audit.result import Check, check

SECONDS_A_DAY = 86_400
ROUNDING = 1e-5
"""Relative difference of a float that another machine's logarithm may make."""


def check_train_attributes(graph: HeteroData, pairs: GraphPairs, listens: Listens) -> Check:
    """Weights, plays, skips, completion and times of train edges equal those of the train rows.

    A weight that counts a held-out play differs, and so does one whose age is measured from the last day of the log.

    Raises:
        InputError: the listens are not those that the graph was built from.
    """
    _check_belongs(pairs, listens)
    half_life = graph[LISTENS].get("half_life_days", WeightConfig().half_life_days)
    rows = listens.rows(train_rows(graph, pairs, listens))
    late = int(pairs.in_train.sum()) - rows.pairs().shape[1]
    differing = {"first listen": late} if late else _differing(graph, pairs, rows.attributes(half_life))
    named = ", ".join(name for name, found in differing.items() if found)
    leak = f"Values of train edges that do not come from train rows alone: {{found}} ({named})."
    clean = "All that train edges carry comes from train rows alone."
    return check("attributes of train edges", sum(differing.values()), clean, leak)


def train_rows(graph: HeteroData, pairs: GraphPairs, listens: Listens) -> Mask:
    """(R,) rows that may be learned from: those of train pairs and, under a temporal split, before the cut."""
    of_train = pairs.in_train.numpy()[listens.pair_of_row()]
    if not is_temporal(pairs) or listens.day is None:
        return of_train
    return of_train & (listens.day <= _last_train_day(graph, pairs, listens, listens.day))


def _last_train_day(graph: HeteroData, pairs: GraphPairs, listens: Listens, day: Ints) -> int:
    """The last day that train edges say they know of, but no day on or after the first held-out listen."""
    held_out = day[listens.starts()][pairs.in_held_out.numpy()]
    latest = int(held_out.min()) - 1 if len(held_out) else int(day.max())
    if "last_played" not in graph[LISTENS] or not pairs.in_train.any():
        return latest
    return min(latest, int(graph[LISTENS].last_played.cpu()[pairs.in_train].max()) // SECONDS_A_DAY)


def _differing(graph: HeteroData, pairs: GraphPairs, expected: dict[str, npt.NDArray[np.generic]]) -> dict[str, int]:
    stored = {name: graph[LISTENS][name].cpu()[pairs.in_train].numpy() for name in expected if name in graph[LISTENS]}
    return {
        name: int(np.sum(~np.isclose(values, expected[name], rtol=ROUNDING, atol=0))) for name, values in stored.items()
    }


def _check_belongs(pairs: GraphPairs, listens: Listens) -> None:
    if not np.array_equal(listens.pairs(), pairs.edges.numpy()):
        raise InputError("The listens table and the graph hold different pairs; give the listens it was built from.")
