"""Whether the model that another one starts from has seen what is held out now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch_geometric.data import HeteroData

from data.errors import InputError
from evaluation.audit.pairs import GraphPairs, contains
from evaluation.audit.result import Check, check

Ints = npt.NDArray[np.int64]

LEARNED_FROM = ("train", "val")
"""Parts that a model has seen: it learned from one, and was chosen by the other."""


def check_warm_start(graph: HeteroData, source: Path) -> Check:
    """No pair that is held out now was learned from by a model whose weights are taken over.

    Pairs are matched by the hashes of their ids, since node numbers change from night to night.

    Args:
        graph: the training graph with masks and id hashes.
        source: the bundle of that model. ``users.parquet``, ``songs.parquet`` and ``seen.parquet`` are read, and its
            manifest, if there is one: a model that was trained on everything has seen its test pairs too.

    Raises:
        InputError: a file of the bundle is missing or unreadable, or the graph has no id hashes.
    """
    seen = _read(source / "seen.parquet")
    if not saw_everything(source):
        seen = seen.filter(pc.is_in(seen["part"], value_set=pa.array(LEARNED_FROM)))
    return check_seen_pairs(graph, *(_hashes(source, kind, seen) for kind in ("user", "song")))


def check_seen_pairs(graph: HeteroData, user_hashes: Ints, song_hashes: Ints) -> Check:
    """The same, of pairs (K,) that are given by the hashes of their users and songs."""
    import torch

    pairs = GraphPairs(graph)
    rows = [_rows(graph, kind, wanted) for kind, wanted in (("user", user_hashes), ("song", song_hashes))]
    known = (rows[0] >= 0) & (rows[1] >= 0)
    seen = torch.from_numpy(np.stack(rows)[:, known])
    found = int(contains(pairs.keys_of(seen).unique(), pairs.held_out).sum())
    clean = "The model that this one starts from has seen no pair that is held out now."
    leak = "The model that this one starts from has seen {found} pairs that are held out now."
    return check("warm start", found, clean, leak)


def saw_everything(source: Path) -> bool:
    """Whether the weights of a bundle were trained on test pairs too: in-sample, or refitted on all listens."""
    facts = _facts(source)
    return bool(facts.get("in_sample") or facts.get("refit"))


def unknown_of(source: Path) -> tuple[str, ...]:
    """What the bundle does not tell about what its weights have seen."""
    said = "Of the days and plays behind the pairs that the earlier model saw, the audit knows nothing."
    earlier = len(_facts(source).get("seen_splits", ())) - 1
    chain = f"The earlier model was itself warmed from {earlier} others, whose pairs are not in its bundle."
    return (said, chain) if earlier > 0 else (said,)


def _facts(source: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((source / "manifest.json").read_text(encoding="utf-8"))["facts"]
    except FileNotFoundError:
        return {}
    return facts


def _hashes(source: Path, kind: str, seen: pa.Table) -> Ints:
    """(K,) the id hash of each row's user or song."""
    hashes: Ints = _read(source / f"{kind}s.parquet")["id_hash"].to_numpy()
    return hashes[seen[kind].to_numpy()]


def _rows(graph: HeteroData, kind: str, wanted: Ints) -> Ints:
    """(K,) the node of each hash, -1 where the graph has none."""
    if "id_hash" not in graph[kind]:
        raise InputError(f"The {kind} nodes of the graph have no id_hash, by which pairs of two runs are matched.")
    hashes = graph[kind].id_hash.cpu().numpy()
    order = np.argsort(hashes)
    place = np.clip(np.searchsorted(hashes, wanted, sorter=order), 0, len(hashes) - 1)
    return np.where(hashes[order[place]] == wanted, order[place], -1)


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid):
        raise InputError(
            f"{path} cannot be read; give the folder of a bundle, as `python -m registry` names it."
        ) from None
