"""Whose listens count, and what is hidden from whom: the parts of a training graph as an evaluation sees them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import LISTENS, graph_digest, has_masks
from data.training_graph import split_digest

Part = Literal["train", "val", "test"]


def part_edges(graph: HeteroData, part: Part) -> Tensor:
    """The (2, E) user and song indices of a part's listens. In a graph without masks, all are train listens.

    Raises:
        InputError: a held-out part is asked of a graph that was not split.
    """
    store = graph[LISTENS]
    if f"{part}_mask" in store:
        return store.edge_index[:, store[f"{part}_mask"]].cpu()
    if part != "train":
        raise InputError(
            f"The graph has no {part}_mask, so nothing in it was held out; split it first, "
            "or evaluate part 'train', whose numbers are in-sample."
        )
    return store.edge_index.cpu()


def hidden_edges(graph: HeteroData, part: Part) -> Tensor | None:
    """What a ranking must not show: the train listens, never the validation ones; in-sample, nothing is hidden."""
    return None if part == "train" else part_edges(graph, "train")


def sample_users(users: Tensor, num_users: int | None, seed: int) -> Tensor:
    """``num_users`` of the given users, drawn without replacement and sorted; all of them where None or not more."""
    if num_users is None or num_users >= len(users):
        return users
    if num_users < 1:
        raise InputError(f"num_eval_users is {num_users}; give a whole number of at least 1, or none for all users.")
    chosen = np.random.default_rng(seed).choice(len(users), size=num_users, replace=False)
    return users[torch.from_numpy(np.sort(chosen))]


def split_identity(graph: HeteroData) -> str:
    """The digest that says on which split numbers stand; of a graph that has no split or no id hashes, its own."""
    named = all("id_hash" in graph[kind] for kind in ("user", "song"))
    return split_digest(graph) if named and has_masks(graph) else graph_digest(graph)
