"""Check that the attributes of train edges come from train rows only: compute them again and compare."""

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
"""Relative difference of floats between machines, for example from different logarithms."""


def check_train_attributes(graph: HeteroData, pairs: GraphPairs, listens: Listens) -> Check:
    """Check that weights, plays, skips, completion and times of train edges equal those computed from the train rows.

    A weight that counts a held-out play differs, and so does a weight whose age is measured from the last day of the
    log.

    Raises:
        InputError: the graph was not built from these listens.
    """
    if not np.array_equal(listens.pairs(), pairs.edges.numpy()):
        raise InputError("The listens table and the graph hold different pairs; give the listens it was built from.")
    half_life = graph[LISTENS].get("half_life_days", WeightConfig().half_life_days)
    rows = listens.rows(train_rows(graph, pairs, listens))
    late = int(pairs.in_train.sum()) - rows.pairs().shape[1]
    differing = {"first listen": late} if late else _count_differing(graph, pairs, rows.attributes(half_life))
    named = ", ".join(name for name, count in differing.items() if count)
    leak = f"Values of train edges that do not come from train rows only: {{found}} ({named})."
    clean = "All attributes of train edges come from train rows only."
    return check("attributes of train edges", sum(differing.values()), clean, leak)


def train_rows(graph: HeteroData, pairs: GraphPairs, listens: Listens) -> Mask:
    """Return a mask (R,) of the rows for training: those of train pairs and, in a temporal split, before the cut."""
    of_train = pairs.in_train.numpy()[listens.pair_of_row()]
    if not is_temporal(pairs) or listens.day is None:
        return of_train
    return of_train & (listens.day <= _last_train_day(graph, pairs, listens, listens.day))


def _last_train_day(graph: HeteroData, pairs: GraphPairs, listens: Listens, day: Ints) -> int:
    """Return the last day in the attributes of train edges, but at most the day before the first held-out listen."""
    held_out = day[listens.starts()][pairs.in_held_out.numpy()]
    latest = int(held_out.min()) - 1 if len(held_out) else int(day.max())
    if "last_played" not in graph[LISTENS] or not pairs.in_train.any():
        return latest
    return min(latest, int(graph[LISTENS].last_played.cpu()[pairs.in_train].max()) // SECONDS_A_DAY)


def _count_differing(
    graph: HeteroData, pairs: GraphPairs, expected: dict[str, npt.NDArray[np.generic]]
) -> dict[str, int]:
    stored = {name: graph[LISTENS][name].cpu()[pairs.in_train].numpy() for name in expected if name in graph[LISTENS]}
    return {
        name: int(np.sum(~np.isclose(values, expected[name], rtol=ROUNDING, atol=0))) for name, values in stored.items()
    }
