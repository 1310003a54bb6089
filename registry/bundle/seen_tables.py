"""Tables of a graph that a recommender needs to work without torch: who listened to what, and who made it."""

from __future__ import annotations

import pyarrow as pa
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS

PARTS = ("train", "val", "test")
LEFT_OUT = "left_out"
KNOWN = (*PARTS, LEFT_OUT)
"""Parts of the known listens; those of the gap before validation are left out of the split."""


def seen_table(graph: HeteroData) -> pa.Table:
    """Return all known listens: ``user`` and ``song`` int32 indices, sorted, and their ``part``, one of ``KNOWN``.

    A split excludes listens of users without a train listen; they have the part from which they were taken. Without
    masks all listens are in "train".
    """
    parts = [_edges(graph, part) for part in PARTS]
    parts.append(_left_out(graph, torch.cat(parts, dim=1)))
    edges = torch.cat(parts, dim=1)
    labels = torch.repeat_interleave(torch.tensor([found.shape[1] for found in parts]))
    order = torch.argsort(_keys(graph, edges), stable=True)
    names = pa.DictionaryArray.from_arrays(pa.array(labels[order].numpy(), pa.int8()), list(KNOWN)).cast(pa.string())
    user, song = (pa.array(column.numpy(), pa.int32()) for column in edges[:, order])
    return pa.table({"user": user, "song": song, "part": names})


def song_artist_table(graph: HeteroData) -> pa.Table:
    """Return ``song`` and ``artist`` int32 indices of the "by" edges, sorted; empty if the graph has no artists."""
    edges = graph[BY].edge_index.cpu() if BY in graph.edge_types else torch.empty((2, 0), dtype=torch.int64)
    ordered = torch.unique(edges, dim=1) if edges.numel() else edges
    return pa.table(
        {name: pa.array(column.numpy(), pa.int32()) for name, column in zip(("song", "artist"), ordered, strict=True)}
    )


def _edges(graph: HeteroData, part: str) -> Tensor:
    store = graph[LISTENS]
    edges = store.edge_index
    if f"{part}_mask" in store:
        edges = edges[:, store[f"{part}_mask"]]
    elif part != "train":
        edges = edges[:, :0]
    excluded = store.get(f"new_user_{part}_index")
    return (edges if excluded is None else torch.cat([edges, excluded], dim=1)).cpu()


def _left_out(graph: HeteroData, divided: Tensor) -> Tensor:
    """Return the edges that are in no part, given those that are."""
    edges = graph[LISTENS].edge_index.cpu()
    return edges[:, ~torch.isin(_keys(graph, edges), _keys(graph, divided))]


def _keys(graph: HeteroData, edges: Tensor) -> Tensor:
    return edges[0] * (int(graph["song"].num_nodes) + 1) + edges[1]
