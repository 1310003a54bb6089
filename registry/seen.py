"""Tables of a graph that a recommender needs once torch is gone: who listened to what, and who made it."""

from __future__ import annotations

import pyarrow as pa
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import BY, LISTENS, has_masks

PARTS = ("train", "val", "test")
LEFT_OUT = "left_out"
KNOWN = (*PARTS, LEFT_OUT)
"""What a listen that the log knows may be in; left out are those of the gap before validation."""


def seen_table(graph: HeteroData) -> pa.Table:
    """All known listens: ``user`` and ``song`` int32 indices, sorted, and which of ``KNOWN`` is their ``part``.

    Listens of users without a train listen, which a split keeps apart, are in the part from which they were taken. A
    graph without masks has the one part "train".
    """
    edges = graph[LISTENS].edge_index.cpu()
    stride = int(graph["song"].num_nodes) + 1
    keys = edges[0] * stride + edges[1]
    part = torch.full_like(keys, KNOWN.index(LEFT_OUT if has_masks(graph) else "train"), dtype=torch.int8)
    for number, name in enumerate(PARTS):
        part[_is_in(graph, name, keys, stride)] = number
    order = torch.argsort(keys, stable=True)
    names = pa.DictionaryArray.from_arrays(pa.array(part[order].numpy()), list(KNOWN)).cast(pa.string())
    user, song = (pa.array(column.numpy(), pa.int32()) for column in edges[:, order])
    return pa.table({"user": user, "song": song, "part": names})


def song_artist_table(graph: HeteroData) -> pa.Table:
    """``song`` and ``artist`` int32 indices of the "by" edges, sorted; empty where the graph has no artists."""
    edges = graph[BY].edge_index.cpu() if BY in graph.edge_types else torch.empty((2, 0), dtype=torch.int64)
    ordered = torch.unique(edges, dim=1) if edges.numel() else edges
    return pa.table(
        {name: pa.array(column.numpy(), pa.int32()) for name, column in zip(("song", "artist"), ordered, strict=True)}
    )


def _is_in(graph: HeteroData, part: str, keys: Tensor, stride: int) -> Tensor:
    """Which pairs (E,) are in a part, those of users without a train listen included."""
    store = graph[LISTENS]
    apart = store.get(f"new_user_{part}_index")
    mask = store[f"{part}_mask"].cpu() if has_masks(graph) else torch.zeros(len(keys), dtype=torch.bool)
    return mask if apart is None else mask | torch.isin(keys, apart[0].cpu() * stride + apart[1].cpu())
