"""Initial vectors for nodes that an earlier model does not know, from their neighbours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS, REV_BY, REV_LISTENS, message_graph

ORDER = ("song", "artist", "user")
"""Songs first: all neighbours of the other kinds are songs."""


def initialize_new_nodes(rows: Mapping[str, Tensor], known: Mapping[str, Tensor], graph: HeteroData) -> None:
    """Set the row of each new node to the mean of its known neighbours' rows, at the mean length of its kind.

    The neighbours of a song are its artists and listeners, those of an artist its songs, those of a user the songs
    heard. A node that got a row counts as known from then on, so that a new user of new songs of a known artist gets a
    row too. A node that no path connects with a known one keeps its row.

    Shapes: rows (N, D) of each kind of node, changed in place; known (N,) bool of each kind.

    Args:
        graph: only train edges are read.
    """
    seen = message_graph(graph)
    known = {kind: mask.clone() for kind, mask in known.items()}
    lengths = {kind: rows[kind][mask].norm(dim=1).mean() for kind, mask in known.items()}
    reached = True
    while reached:
        reached = False
        for kind in (kind for kind in ORDER if kind in rows):
            reached |= _initialize_kind(kind, rows, known, lengths[kind], seen)


def _initialize_kind(
    kind: str, rows: Mapping[str, Tensor], known: Mapping[str, Tensor], length: Tensor, seen: HeteroData
) -> bool:
    """Set the rows of the new nodes of one kind that have a known neighbour; return whether there were any."""
    total = torch.zeros_like(rows[kind])
    count = total.new_zeros(len(total))
    for source, relation, target in (LISTENS, REV_LISTENS, BY, REV_BY):
        if target == kind and source in rows:
            ends = seen[source, relation, target].edge_index.to(total.device)
            ends = ends[:, known[source].to(ends.device)[ends[0]]]
            total.index_add_(0, ends[1], rows[source][ends[0]])
            count.index_add_(0, ends[1], count.new_ones(ends.shape[1]))
    new = (count > 0) & ~known[kind].to(count.device)
    middle = total[new] / count[new, None]
    size = middle.norm(dim=1, keepdim=True).clamp(min=1e-12)
    rows[kind][new] = middle if length.isnan() else middle * (length / size)
    known[kind] |= new.to(known[kind].device)
    return bool(new.any())
