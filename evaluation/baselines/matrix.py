"""The train listens as a sparse matrix, and scores that are this matrix times a learned matrix."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from torch_geometric.data import HeteroData

from data.graph import LISTENS
from evaluation.parts import part_edges
from evaluation.ranking import Score


def train_matrix(graph: HeteroData, weighted: bool) -> csr_matrix:
    """Return the train listens as a matrix of users by songs (U, S), float64.

    An entry is 1 or, if ``weighted`` and the graph has weights, the confidence of the listen, above 0.
    """
    users, songs = part_edges(graph, "train").numpy()
    weights = train_values(graph, "weight") if weighted else None
    values = np.ones(len(users)) if weights is None else weights.astype(np.float64)
    shape = (int(graph["user"].num_nodes), int(graph["song"].num_nodes))
    matrix = csr_matrix((values, (users, songs)), shape=shape)
    matrix.eliminate_zeros()
    return matrix


def train_values(graph: HeteroData, name: str) -> npt.NDArray[np.generic] | None:
    """Return an attribute (E,) of the train listens, in the order of ``part_edges``; None if the graph lacks it."""
    store = graph[LISTENS]
    if name not in store:
        return None
    values = store[name][store.train_mask] if "train_mask" in store else store[name]
    found: npt.NDArray[np.generic] = values.cpu().numpy()
    return found


def listens_times(listens: csr_matrix, songs: csr_matrix) -> Score:
    """Return a score function: the user's row of ``listens`` (U, S) times ``songs`` (S, S).

    Each user's sums are computed separately and in the order of the songs, so they do not depend on the batch.
    """
    return lambda users: torch.from_numpy((listens[users.cpu().numpy()] @ songs).toarray())  # (B, S)
