"""Check the edges: masks, messages, attributes, and lists of pairs."""

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
    """Check that there are all three masks or none, and that each has one bool per edge.

    If one is missing, every edge would count as train.
    """
    store = graph[LISTENS]
    size = store.edge_index.shape[1:]
    found = [name for name in MASKS if name in store]
    bad = [name for name in found if store[name].dtype != torch.bool or store[name].shape != size]
    missing = [name for name in MASKS if name not in store] if found or set(KNOWN_LISTS) & set(store.keys()) else []
    named = ", ".join(sorted({*bad, *missing}))
    leak = (
        f"Masks that are missing or do not have one bool per edge: {{found}} ({named}); it is not certain what is held "
        "out."
    )
    clean = "Each mask has one bool per edge, or there are no masks."
    return check("form of the masks", len({*bad, *missing}), clean, leak)


def check_masks(pairs: GraphPairs) -> Check:
    """Check that no edge is in two masks."""
    found = int((pairs.parts.sum(0) > 1).sum())
    leak = "Listens edges in two masks: {found}; they are held out and also train or validation."
    return check("masks overlap", found, "No edge is in two masks.", leak)


def check_unmasked(pairs: GraphPairs) -> Check:
    """Check that each edge in no mask belongs to a new user or, in a temporal split, to the gap."""
    unmasked = ~pairs.parts.any(0) & ~contains(pairs.new_users, pairs.keys)
    found = 0 if is_temporal(pairs) else int(unmasked.sum())
    leak = "Listens edges in no mask and of no new user: {found}; it is not known if training may read them."
    return check("edges in no mask", found, "Every edge in no mask is of a new user or in the gap.", leak)


def check_pairs_once(pairs: GraphPairs) -> Check:
    """Check that a pair with several edges is in one part only."""
    code = (pairs.parts * torch.tensor([[1], [2], [4]])).sum(0)
    found = len((pairs.keys * 8 + code).unique()) - len(pairs.keys.unique())
    leak = "User-song pairs that are in the graph twice, in different parts: {found}."
    return check("pairs in two parts", found, "Each user-song pair is in one part.", leak)


def check_messages(seen: HeteroData, pairs: GraphPairs) -> Check:
    """Check that messages pass over train pairs only, in both directions.

    Args:
        seen: ``data.graph.message_graph`` of the audited graph, which is all that a model sees.
        pairs: the pairs of the audited graph.
    """
    directions = (seen[LISTENS].edge_index, seen[REV_LISTENS].edge_index.flip(0))
    keys = torch.cat([pairs.keys_of(edges) for edges in directions])
    leaking = keys[contains(pairs.held_out, keys) | ~contains(pairs.train, keys)]
    clean = "Messages pass over train pairs and their reverses only."
    leak = "Held-out pairs among the edges that messages pass over, or their reverses: {found}."
    return check("messages", len(leaking.unique()), clean, leak)


def check_held_out_attributes(graph: HeteroData, pairs: GraphPairs) -> Check:
    """Check that held-out edges and their reverses have zeros as weight, plays and times."""
    held_out_keys = pairs.keys[pairs.in_held_out].unique()
    reverse = contains(held_out_keys, pairs.keys_of(graph[REV_LISTENS].edge_index.flip(0)))
    counts: dict[str, int] = {}
    for edge, held_out in ((LISTENS, pairs.in_held_out), (REV_LISTENS, reverse)):
        for name, value in edge_attributes(graph[edge], len(held_out)):
            values = value.cpu()[held_out]
            counts[f"{edge[1]}.{name}"] = int((values.reshape(len(values), -1) != 0).any(1).sum())
    named = ", ".join(name for name, count in counts.items() if count)
    leak = f"Values on held-out edges that are not zero: {{found}} ({named}); they tell what is hidden."
    clean = "Held-out edges and their reverses have only zeros."
    return check("attributes of held-out edges", sum(counts.values()), clean, leak)


def check_new_users(pairs: GraphPairs) -> Check:
    """Check that no pair of a new user is in a mask."""
    found = int(contains(pairs.keys[pairs.parts.any(0)].unique(), pairs.new_users).sum())
    leak = "Pairs of users without a train pair that are in a mask too: {found}."
    return check("pairs of new users", found, "Pairs of users without a train pair are in no mask.", leak)


def check_lists(graph: HeteroData, pairs: GraphPairs) -> Check:
    """Check that no other list of pairs, for example one that negatives avoid, has a held-out pair."""
    found = {name: pairs.num_held_out(value) for name, value in _lists(graph)}
    named = ", ".join(name for name, count in found.items() if count)
    leak = f"Held-out pairs in lists of the graph, such as those that negatives avoid: {{found}} ({named})."
    return check("lists of pairs", sum(found.values()), "No other list of pairs has a held-out pair.", leak)


def pair_digests(seen: HeteroData, pairs: GraphPairs) -> dict[str, str]:
    """Return SHA-256 digests of the pairs of train, of messages, of reversed messages, and of the held-out pairs.

    In a clean graph the first three are equal.
    """
    forward, backward = seen[LISTENS].edge_index, seen[REV_LISTENS].edge_index.flip(0)
    sets = {
        "train pairs": pairs.train,
        "pairs of messages": pairs.keys_of(forward).unique(),
        "pairs of reversed messages": pairs.keys_of(backward).unique(),
        "held-out pairs": pairs.held_out,
    }
    digests = {}
    for name, keys in sets.items():
        digest = hashlib.sha256()
        update_digest(digest, keys)
        digests[name] = digest.hexdigest()
    return digests


def is_temporal(pairs: GraphPairs) -> bool:
    """Return True if the split was by time: only such a split has lists of re-listens."""
    return any(name in pairs.store for name in RELISTENS)


def edge_attributes(store: BaseStorage, num_edges: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and values (E, ...) of each edge attribute, without masks and lists of pairs."""
    for name, value in store.items():
        is_other = name in ("edge_index", *MASKS, *KNOWN_LISTS)
        if isinstance(value, Tensor) and not is_other and value.dim() and len(value) == num_edges:
            yield name, value


def _lists(graph: HeteroData) -> Iterator[tuple[str, Tensor]]:
    """Yield all lists of user-song pairs (2, K) in the graph, except those that the split itself makes."""
    for store in (graph._global_store, graph["user"], graph["song"], graph[LISTENS]):
        for name, value in store.items():
            is_list = isinstance(value, Tensor) and value.dim() == 2 and len(value) == 2
            if is_list and not value.is_floating_point() and name not in ("edge_index", *KNOWN_LISTS):
                yield name, value
