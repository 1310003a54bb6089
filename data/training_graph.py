"""The training graph: the whole graph with its edges split, and without any value from held-out listens."""

from __future__ import annotations

import copy
import hashlib

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.cutoff import day_to_date
from data.errors import InputError
from data.graph import LISTENS, MASKS, REV_LISTENS, has_masks, set_listens, update_digest
from data.listens import Listens
from data.split import Part, Split, SplitConfig, split_listens
from data.weights import WeightConfig

EDGE_ATTRIBUTES = ("plays", "skips", "completion", "first_played", "last_played", "weight")
TEST_INDEXES = ("new_user_test_index", "relisten_test_index")
NEW_USER_INDEXES = {"new_user_val_index": Part.NEW_USER_VAL, "new_user_test_index": Part.NEW_USER_TEST}


def split_graph(graph: HeteroData, config: SplitConfig, listens: pa.Table | None = None) -> HeteroData:
    """Return a new graph with ``train_mask``, ``val_mask`` and ``test_mask`` (E,) on its ``listens`` edges.

    The attributes of all edges but the train edges are zero. ``new_user_val_index`` and ``new_user_test_index`` (2, K)
    hold the held-out pairs of users without a train pair; these pairs are in no mask.

    With the strategy ``temporal``, all attributes come from rows before the cut. ``val_from_day`` and ``test_from_day``
    (days since 1970-01-01) hold the cut. ``relisten_val_index`` and ``relisten_test_index`` (2, K) hold the pairs that
    are heard in these days and were heard before.

    Artists and the list of songs are catalogue data that is known in advance, so all of them stay. ``graph`` is not
    changed.

    Args:
        graph: a graph of ``data.graph.build_graph``, without masks.
        config: the strategy and its settings.
        listens: the rows (user, song, day) that ``graph`` was built from. With them, the attributes of train edges are
            computed again from train rows only, so that not even the last day of the log leaks into the age of a
            listen. Without them, the attributes stay, and only ``random`` and ``leave_last_out`` are possible.

    Raises:
        InputError: the graph is already split, does not belong to the listens or has no id hashes, or the strategy
            cannot be applied.
    """
    _check_can_split(graph)
    graph = copy.copy(graph).cpu()
    rows = _listens_of_edges(graph) if listens is None else Listens.from_table(listens)
    if not np.array_equal(rows.pairs(), graph[LISTENS].edge_index.numpy()):
        raise InputError("The listens table and the graph hold different pairs; build the graph from these listens.")
    split = split_listens(rows, graph["user"].id_hash.numpy(), graph["song"].id_hash.numpy(), config)
    attributes = _kept_attributes(graph, split) if listens is None else _train_attributes(graph, rows, split)
    return _with_split(graph, split, attributes)


def without_test(graph: HeteroData) -> HeteroData:
    """Return a new graph with the train and validation edges of ``graph``; its ``test_mask`` is False everywhere.

    A search that looks at test listens chooses what fits them, and their numbers come out too good. Here they are
    removed, not hidden: no trainer, a custom one included, can measure on them or learn from them. ``graph`` is not
    changed.

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


def split_counts(graph: HeteroData) -> dict[str, int]:
    """Count pairs and users of each part of a training graph, for a table that people read."""
    store = graph[LISTENS]
    counts = {"users": graph["user"].num_nodes, "songs": graph["song"].num_nodes, "pairs": store.edge_index.size(1)}
    for mask in MASKS:
        part = mask.removesuffix("_mask")
        counts[f"{part}_pairs"] = int(store[mask].sum())
        counts[f"{part}_users"] = store.edge_index[0, store[mask]].unique().numel()
    for name in ("new_user_val_index", "new_user_test_index", "relisten_val_index", "relisten_test_index"):
        if name in store:
            counts[f"{name.removesuffix('_index')}_pairs"] = store[name].size(1)
    return counts


def split_days(graph: HeteroData) -> dict[str, str]:
    """Return the first validation and test days (ISO) of a temporal split; empty for other strategies."""
    days = {key: graph[LISTENS].get(f"{key}_day") for key in ("val_from", "test_from")}
    return {key: day_to_date(day).isoformat() for key, day in days.items() if day is not None}


def split_digest(graph: HeteroData) -> str:
    """Return the SHA-256 of the parts of all pairs; metrics of graphs with the same digest are comparable."""
    digest = hashlib.sha256()
    for value in (graph["user"].id_hash, graph["song"].id_hash, graph[LISTENS].edge_index):
        update_digest(digest, value)
    for mask in MASKS:
        update_digest(digest, graph[LISTENS][mask])
    return digest.hexdigest()


def _check_can_split(graph: HeteroData) -> None:
    if has_masks(graph):
        raise InputError("The graph has train, val and test masks already; split the graph it was made from.")
    for kind in ("user", "song"):
        if "id_hash" not in graph[kind]:
            raise InputError(
                f"The {kind} nodes of the graph have no id_hash, by which pairs are drawn; add it as int64."
            )


def _listens_of_edges(graph: HeteroData) -> Listens:
    """Return the edges as listens, one row per pair."""
    store = graph[LISTENS]
    user, song = store.edge_index.numpy()
    plays = store.plays.numpy() if "plays" in store else np.ones(len(user), dtype=np.int64)
    first_played = store.first_played.numpy() if "first_played" in store else None
    return Listens(user=user, song=song, plays=plays, first_played=first_played)


def _train_attributes(graph: HeteroData, rows: Listens, split: Split) -> dict[str, Tensor]:
    """Compute the attributes (E,) from train rows only; zero on all other edges."""
    half_life = graph[LISTENS].get("half_life_days", WeightConfig().half_life_days)
    attributes = {}
    for name, values in rows.rows(split.train_rows).attributes(half_life).items():
        on_edges = np.zeros(len(split.part), dtype=values.dtype)
        on_edges[split.part == Part.TRAIN] = values
        attributes[name] = torch.from_numpy(on_edges)
    return attributes


def _kept_attributes(graph: HeteroData, split: Split) -> dict[str, Tensor]:
    """Return the graph's own attributes (E,), set to zero on all edges but the train edges."""
    store, is_train = graph[LISTENS], torch.from_numpy(split.part == Part.TRAIN)
    kept = {name: store[name] for name in EDGE_ATTRIBUTES if name in store}
    return {name: torch.where(is_train, values, torch.zeros_like(values)) for name, values in kept.items()}


def _with_split(graph: HeteroData, split: Split, attributes: dict[str, Tensor]) -> HeteroData:
    divided = copy.copy(graph)
    pairs = graph[LISTENS].edge_index.clone()
    half_life = graph[LISTENS].get("half_life_days", WeightConfig().half_life_days)
    set_listens(divided, pairs, attributes, half_life)
    store = divided[LISTENS]
    for mask, part in zip(MASKS, (Part.TRAIN, Part.VAL, Part.TEST), strict=True):
        store[mask] = torch.from_numpy(split.part == part)
    for name, part in NEW_USER_INDEXES.items():
        store[name] = pairs[:, torch.from_numpy(split.part == part)]
    if split.relisten_val is not None and split.relisten_test is not None:
        store.relisten_val_index = pairs[:, torch.from_numpy(split.relisten_val)]
        store.relisten_test_index = pairs[:, torch.from_numpy(split.relisten_test)]
    if split.cut is not None:
        store.val_from_day, store.test_from_day = split.cut
    return divided


def _is_of_edges(name: str, value: object, count: int) -> bool:
    """Return True if a value has an entry for each edge: (2, E) or (E,)."""
    indexes_nodes = name.endswith("_index") and name != "edge_index"
    return isinstance(value, Tensor) and not indexes_nodes and value.shape[-1] == count
