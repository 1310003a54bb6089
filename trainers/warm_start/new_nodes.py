"""A first vector for nodes that an earlier model does not know: where their neighbours are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS, REV_BY, REV_LISTENS, message_graph

ORDER = ("song", "artist", "user")
"""Songs first: the others have no neighbours but songs."""


def fold_in(rows: Mapping[str, Tensor], known: Mapping[str, Tensor], graph: HeteroData) -> None:
    """Give each new node the mean of its known neighbours' rows, at the usual length of its kind's.

    A song stands between its artists and listeners, an artist between its songs, a user between the songs heard. What
    was given a row counts as known from then on, so that a new user of new songs of a known artist has one too; a node
    that no chain of neighbours ties to a known one keeps its row.

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
            reached |= _reach(kind, rows, known, lengths[kind], seen)


def _reach(
    kind: str, rows: Mapping[str, Tensor], known: Mapping[str, Tensor], length: Tensor, seen: HeteroData
) -> bool:
    """Fold in the new nodes of one kind that have a known neighbour; whether there were any."""
    total = torch.zeros_like(rows[kind])
    count = total.new_zeros(len(total))
    for source, relation, target in (LISTENS, REV_LISTENS, BY, REV_BY):
        if target == kind and source in rows:
            ends = seen[source, relation, target].edge_index.to(total.device)
            told = ends[:, known[source].to(ends.device)[ends[0]]]
            total.index_add_(0, told[1], rows[source][told[0]])
            count.index_add_(0, told[1], count.new_ones(told.shape[1]))
    new = (count > 0) & ~known[kind].to(count.device)
    middle = total[new] / count[new, None]
    size = middle.norm(dim=1, keepdim=True).clamp(min=1e-12)
    rows[kind][new] = middle if length.isnan() else middle * (length / size)
    known[kind] |= new.to(known[kind].device)
    return bool(new.any())
