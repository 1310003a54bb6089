"""What a search of hyper-parameters works on: a training graph without a trace of its test listens."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import LISTENS, REV_LISTENS, has_masks

TEST_INDEXES = ("new_user_test_index", "relisten_test_index")


def without_test(graph: HeteroData) -> HeteroData:
    """A new graph with the train and validation edges of ``graph``, and ``test_mask`` False on all of them.

    What is chosen by looking at test listens is measured too well on them. Here they are gone, not hidden: no trainer,
    a custom one included, can measure on them or learn from them. ``graph`` is not changed.

    Raises:
        InputError: the graph is not split, or holds nothing out for validation.
    """
    if not has_masks(graph):
        raise InputError("The graph has no train, val and test masks; split it before a search.")
    if not bool(graph[LISTENS].val_mask.any()):
        raise InputError(
            "The split leaves no validation listens, by which a search chooses; raise training.val_ratio, or give a "
            "longer log."
        )
    kept, keep = copy.copy(graph), ~graph[LISTENS].test_mask
    for edges in (LISTENS, REV_LISTENS):
        for name, value in graph[edges].items():
            kept[edges][name] = value[..., keep] if _is_of_edges(name, value, len(keep)) else value
    for name in TEST_INDEXES:
        if name in kept[LISTENS]:
            kept[LISTENS][name] = torch.zeros((2, 0), dtype=torch.long)
    return kept


def _is_of_edges(name: str, value: object, count: int) -> bool:
    """Whether a value has an entry for each edge: (2, E) or (E,)."""
    indexes_nodes = name.endswith("_index") and name != "edge_index"
    return isinstance(value, Tensor) and not indexes_nodes and value.shape[-1] == count
