"""Select which listens are relevant and which are hidden: the parts of a training graph in an evaluation."""

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
    """Return the user and song indices (2, E) of a part's listens. In a graph without masks, all are train listens.

    Raises:
        InputError: the part is held out, but the graph was not split.
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
    """Return the pairs that a ranking must not show: the train listens. Validation listens are never hidden.

    In-sample nothing is hidden, and the result is None.
    """
    return None if part == "train" else part_edges(graph, "train")


def sample_users(users: Tensor, num_users: int | None, seed: int) -> Tensor:
    """Draw ``num_users`` users without replacement, sorted; all users if it is None or not below their number."""
    if num_users is None or num_users >= len(users):
        return users
    if num_users < 1:
        raise InputError(f"num_eval_users is {num_users}; give a whole number of at least 1, or none for all users.")
    chosen = np.random.default_rng(seed).choice(len(users), size=num_users, replace=False)
    return users[torch.from_numpy(np.sort(chosen))]


def split_identity(graph: HeteroData) -> str:
    """Return the digest that identifies the split; for a graph without a split or id hashes, the graph's digest."""
    has_hashes = all("id_hash" in graph[kind] for kind in ("user", "song"))
    return split_digest(graph) if has_hashes and has_masks(graph) else graph_digest(graph)
