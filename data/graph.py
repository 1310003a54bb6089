"""The graph of users, songs and artists: how it is built, saved and loaded, and which part of it carries messages.

Importing this module registers PyG's storage classes as safe globals, so that ``torch.load("data/graph.pt")`` works
with its safe default (PyG 2.8 does not do so itself).
"""

from __future__ import annotations

import hashlib
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.storage import BaseStorage, EdgeStorage, GlobalStorage, NodeStorage

from data.errors import InputError
from data.listens import Listens
from data.weights import WeightConfig

EdgeType = tuple[str, str, str]

LISTENS: EdgeType = ("user", "listens", "song")
REV_LISTENS: EdgeType = ("song", "rev_listens", "user")
BY: EdgeType = ("song", "by", "artist")
REV_BY: EdgeType = ("artist", "rev_by", "song")

NODE_TYPES = ("user", "song", "artist")
EDGE_TYPES = (LISTENS, REV_LISTENS, BY, REV_BY)
MASKS = ("train_mask", "val_mask", "test_mask")

DAMAGE = (
    RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip
"""Exceptions that reading a damaged archive, or unpickling its content, can raise."""

torch.serialization.add_safe_globals([HeteroData, BaseStorage, NodeStorage, EdgeStorage, GlobalStorage])


def build_graph(listens_folder: Path, config: WeightConfig | None = None) -> HeteroData:
    """Build the graph of a whole log from the folder that the ingest stage wrote.

    Nodes carry ``id_hash`` (int64). ``listens`` edges are sorted by (user, song). They carry ``plays`` and ``weight``,
    and ``skips``, ``completion``, ``first_played`` and ``last_played`` if the log has them. They also carry the
    half-life of the weights as a plain number, because the split computes the weights again from train rows.

    Raises:
        InputError: a file of the folder is missing or cannot be read.
    """
    tables = {kind: _read_table(listens_folder / f"{kind}s.parquet") for kind in NODE_TYPES}
    listens = Listens.from_table(_read_table(listens_folder / "listens.parquet"))
    song_artists = _read_table(listens_folder / "song_artists.parquet")
    hashes = {kind: _tensor(_column(table, "id_hash")) for kind, table in tables.items()}
    by = torch.stack([_tensor(_column(song_artists, "song")), _tensor(_column(song_artists, "artist"))])
    return assemble_graph(hashes, listens, by, config or WeightConfig())


def assemble_graph(id_hashes: dict[str, Tensor], listens: Listens, by: Tensor, config: WeightConfig) -> HeteroData:
    """Build the graph from its parts in memory.

    Args:
        id_hashes: (N,) int64 for each node type, in the order of the nodes.
        listens: the rows (user, song, day).
        by: (2, B) int64 song and artist, sorted and distinct; (2, 0) if there are no artists.
        config: the half-life of the edge weights.
    """
    graph = HeteroData()
    for kind in NODE_TYPES:
        graph[kind].num_nodes = len(id_hashes[kind])
        graph[kind].id_hash = id_hashes[kind]
    attributes = {name: _tensor(values) for name, values in listens.attributes(config.half_life_days).items()}
    set_listens(graph, _tensor(listens.pairs()), attributes, config.half_life_days)
    set_by(graph, by)
    return graph


def set_listens(graph: HeteroData, pairs: Tensor, attributes: dict[str, Tensor], half_life_days: float) -> None:
    """Put the edges (2, E) and their attributes (E,) into ``graph``; the reverse edges get only the weight."""
    graph[LISTENS].edge_index = pairs
    for name in sorted(attributes):
        graph[LISTENS][name] = attributes[name]
    graph[LISTENS].half_life_days = half_life_days
    graph[REV_LISTENS].edge_index = pairs.flip(0)
    graph[REV_LISTENS].weight = attributes["weight"].clone()


def set_by(graph: HeteroData, by: Tensor) -> None:
    """Put the edges (2, B) from songs to artists and their reverse edges into ``graph``."""
    graph[BY].edge_index = by
    graph[REV_BY].edge_index = by.flip(0)


def message_graph(graph: HeteroData) -> HeteroData:
    """Return what a model may see: node counts, ``by`` edges, train edges with their weights, and reverse edges.

    Nothing else is copied, so held-out edges cannot be read. Without masks every edge is a train edge.
    """
    listens = graph[LISTENS]
    train = listens.train_mask if has_masks(graph) else torch.ones_like(listens.edge_index[0], dtype=torch.bool)
    seen = HeteroData()
    for kind in NODE_TYPES:
        seen[kind].num_nodes = graph[kind].num_nodes
    seen[LISTENS].edge_index = listens.edge_index[:, train]
    seen[LISTENS].weight = listens.weight[train]
    seen[REV_LISTENS].edge_index = seen[LISTENS].edge_index.flip(0)
    seen[REV_LISTENS].weight = seen[LISTENS].weight.clone()
    set_by(seen, graph[BY].edge_index.clone())
    return seen


def has_masks(graph: HeteroData) -> bool:
    """Return whether the graph was split into train, validation and test edges."""
    return all(mask in graph[LISTENS] for mask in MASKS)


def node_counts(graph: HeteroData) -> dict[str, int]:
    """Return the keys of a model's config that come from the graph: ``num_users``, ``num_songs``, ``num_artists``."""
    return {f"num_{kind}s": int(graph[kind].num_nodes) for kind in NODE_TYPES}


def graph_counts(graph: HeteroData) -> dict[str, int]:
    """Count nodes of each type, user-song pairs and song-artist pairs, for a table that people read."""
    nodes = {f"{kind}s": graph[kind].num_nodes for kind in NODE_TYPES}
    return {**nodes, "pairs": graph[LISTENS].edge_index.size(1), "song_artists": graph[BY].edge_index.size(1)}


def save_graph(graph: HeteroData, path: Path) -> None:
    """Write ``graph``; the same graph with the same file name gives the same bytes.

    torch writes the stem of the file name into the file. So to publish a graph atomically, write it under its final
    name in a temporary folder, then rename the folder or move the file.
    """
    torch.save(graph, path)


def load_graph(path: Path) -> HeteroData:
    """Read a graph with torch's safe default, which allows only tensors and plain values.

    Raises:
        InputError: there is no such file, it is damaged, or it is not a graph of this project.
    """
    try:
        _check_sums(path)
        graph = torch.load(path)
    except FileNotFoundError:
        raise InputError(f"There is no graph at {path}; build it with `python -m flows.build_graph`.") from None
    except OSError as error:
        raise InputError(f"The graph at {path} cannot be read: {error.strerror or error}.") from None
    except DAMAGE:
        raise InputError(f"The graph at {path} is damaged or not a graph file; delete it and build it again.") from None
    _check_schema(graph, path)
    return graph


def graph_digest(graph: HeteroData) -> str:
    """Return the SHA-256 of all tensors and plain values, with names, types and shapes; equal on all machines."""
    digest = hashlib.sha256()
    for name, value in _named_values(graph):
        digest.update(name.encode())
        update_digest(digest, value)
    return digest.hexdigest()


def update_digest(digest: Any, value: Any) -> None:
    """Add one value to a hashlib ``digest``: a tensor by type, shape and bytes, anything else by its ``repr``."""
    if not isinstance(value, Tensor):
        digest.update(repr(value).encode())
        return
    digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
    digest.update(value.detach().cpu().contiguous().numpy().tobytes())


def _named_values(graph: HeteroData) -> Iterator[tuple[str, Any]]:
    stores = {
        "/".join(key) if isinstance(key, tuple) else key: graph[key] for key in (*graph.node_types, *graph.edge_types)
    }
    for key in sorted(stores):
        for name in sorted(stores[key].keys()):
            yield f"{key}.{name}", stores[key][name]


def _check_sums(path: Path) -> None:
    """Check the file's checksums: torch writes them but does not check them, and would load flipped bits."""
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise zipfile.BadZipFile


def _check_schema(graph: Any, path: Path) -> None:
    is_graph = isinstance(graph, HeteroData)
    if is_graph and set(graph.node_types) == set(NODE_TYPES) and set(graph.edge_types) == set(EDGE_TYPES):
        return
    kinds = ", ".join(NODE_TYPES)
    raise InputError(f"{path} holds no graph with the node types {kinds}; build it with `python -m flows.build_graph`.")


def _read_table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"The listens folder lacks {path.name} (looked for {path}); run the ingest stage.") from None
    except (pa.ArrowInvalid, OSError):
        raise InputError(
            f"{path} is not a Parquet file that can be read; delete it and run the ingest stage."
        ) from None


def _column(table: pa.Table, name: str) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = table[name].cast(pa.int64()).to_numpy()
    return values


def _tensor(values: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.copy())  # arrays from Arrow are read-only
