"""Checks of the edges themselves: masks, messages, attributes, and lists of pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.storage import BaseStorage

from data.graph import LISTENS, MASKS, REV_LISTENS, update_digest
from evaluation.audit.pairs import KNOWN_LISTS, RELISTENS, GraphPairs, contains
from evaluation.audit.result import Check, check


def check_mask_form(graph: HeteroData) -> Check:
    """All three masks or none, each one bool an edge: with one missing, every edge would count as train."""
    store = graph[LISTENS]
    size = store.edge_index.shape[1:]
    found = [name for name in MASKS if name in store]
    bad = [name for name in found if store[name].dtype != torch.bool or store[name].shape != size]
    missing = [name for name in MASKS if name not in store] if found or set(KNOWN_LISTS) & set(store.keys()) else []
    named = ", ".join(sorted({*bad, *missing}))
    leak = f"Masks that are missing or not one bool an edge: {{found}} ({named}); so no edge is held out for certain."
    return check("form of the masks", len({*bad, *missing}), "Each mask is one bool an edge, or there is none.", leak)


def check_masks(pairs: GraphPairs) -> Check:
    """No edge is in two masks."""
    found = int((pairs.parts.sum(0) > 1).sum())
    leak = "Listens edges in two masks: {found}; what is held out there is also train or validation."
    return check("masks overlap", found, "No edge is in two masks.", leak)


def check_unmasked(pairs: GraphPairs) -> Check:
    """An edge in no mask belongs to a new user or, under a temporal split, lies in the gap."""
    unmasked = ~pairs.parts.any(0) & ~contains(pairs.new_users, pairs.keys)
    found = 0 if is_temporal(pairs) else int(unmasked.sum())
    leak = "Listens edges in no mask and of no new user: {found}; nobody knows whether they may be read."
    return check("edges in no mask", found, "Every edge in no mask is of a new user or in the gap.", leak)


def check_pairs_once(pairs: GraphPairs) -> Check:
    """A pair that stands on several edges is in one part only."""
    code = (pairs.parts * torch.tensor([[1], [2], [4]])).sum(0)
    found = len((pairs.keys * 8 + code).unique()) - len(pairs.keys.unique())
    leak = "User-song pairs that stand twice in the graph, in different parts: {found}."
    return check("pairs in two parts", found, "Each user-song pair is in one part.", leak)


def check_messages(seen: HeteroData, pairs: GraphPairs) -> Check:
    """Messages pass over train pairs alone, in both directions.

    Args:
        seen: what ``data.graph.message_graph`` gives of the audited graph, which is all that a model is shown.
    """
    directions = (seen[LISTENS].edge_index, seen[REV_LISTENS].edge_index.flip(0))
    leaking = torch.cat([keys[_is_foreign(keys, pairs)] for keys in map(pairs.keys_of, directions)])
    clean = "Messages pass over train pairs and their reverses alone."
    leak = "Held-out pairs among the edges that messages pass over, or their reverses: {found}."
    return check("messages", len(leaking.unique()), clean, leak)


def check_held_out_attributes(graph: HeteroData, pairs: GraphPairs) -> Check:
    """Held-out edges and their reverses carry no weight, no plays, no times."""
    held_out_keys = pairs.keys[pairs.in_held_out].unique()
    reverse = contains(held_out_keys, pairs.keys_of(graph[REV_LISTENS].edge_index.flip(0)))
    carried = {
        f"{edge[1]}.{name}": int(_carries(value.cpu()[held_out]).sum())
        for edge, held_out in ((LISTENS, pairs.in_held_out), (REV_LISTENS, reverse))
        for name, value in edge_attributes(graph[edge], len(held_out))
    }
    named = ", ".join(name for name, found in carried.items() if found)
    leak = f"Values on held-out edges that are not zero: {{found}} ({named}); they tell what is hidden."
    clean = "Held-out edges and their reverses carry zeros."
    return check("attributes of held-out edges", sum(carried.values()), clean, leak)


def check_new_users(pairs: GraphPairs) -> Check:
    """A pair of a new user is in no part that is learned from or measured with the others."""
    found = int(contains(pairs.keys[pairs.parts.any(0)].unique(), pairs.new_users).sum())
    leak = "Pairs of users without a train pair that are in a mask too: {found}."
    return check("pairs of new users", found, "Pairs of users without a train pair are in no mask.", leak)


def check_lists(graph: HeteroData, pairs: GraphPairs) -> Check:
    """No list of pairs beside the masks, for example one that negatives avoid, names a held-out pair."""
    found = {name: pairs.num_held_out(value) for name, value in _lists(graph)}
    named = ", ".join(name for name, count in found.items() if count)
    leak = f"Held-out pairs in lists of the graph, such as those that negatives avoid: {{found}} ({named})."
    return check("lists of pairs", sum(found.values()), "No further list of pairs names a held-out pair.", leak)


def pair_digests(seen: HeteroData, pairs: GraphPairs) -> dict[str, str]:
    """SHA-256 of sets of pairs: those of train, of messages, of the reverses (all three equal), and the held-out."""
    forward, backward = seen[LISTENS].edge_index, seen[REV_LISTENS].edge_index.flip(0)
    sets = {
        "train pairs": pairs.train,
        "pairs of messages": pairs.keys_of(forward).unique(),
        "pairs of reversed messages": pairs.keys_of(backward).unique(),
        "held-out pairs": pairs.held_out,
    }
    return {name: _digest(keys) for name, keys in sets.items()}


def is_temporal(pairs: GraphPairs) -> bool:
    """Whether the split was by time: only then are re-listens kept apart."""
    return any(name in pairs.store for name in RELISTENS)


def edge_attributes(store: BaseStorage, num_edges: int) -> Iterator[tuple[str, Tensor]]:
    """Name and values (E, ...) of what a store keeps for each edge, without masks and lists of pairs."""
    for name, value in store.items():
        is_other = name in ("edge_index", *MASKS, *KNOWN_LISTS)
        if isinstance(value, Tensor) and not is_other and value.dim() and len(value) == num_edges:
            yield name, value


def _lists(graph: HeteroData) -> Iterator[tuple[str, Tensor]]:
    """Lists of user-song pairs (2, K), wherever the graph keeps them, that are not the split's own."""
    for store in (graph._global_store, graph["user"], graph["song"], graph[LISTENS]):
        for name, value in store.items():
            is_list = isinstance(value, Tensor) and value.dim() == 2 and len(value) == 2
            if is_list and not value.is_floating_point() and name not in ("edge_index", *KNOWN_LISTS):
                yield name, value


def _is_foreign(keys: Tensor, pairs: GraphPairs) -> Tensor:
    return contains(pairs.held_out, keys) | ~contains(pairs.train, keys)


def _carries(values: Tensor) -> Tensor:
    return (values.reshape(len(values), -1) != 0).any(1)


def _digest(keys: Tensor) -> str:
    digest = hashlib.sha256()
    update_digest(digest, keys)
    return digest.hexdigest()
