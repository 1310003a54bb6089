"""Whether the model that another one starts from has seen what is held out now."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.vocabulary import rows_of
from evaluation.audit.pairs import GraphPairs, contains
from evaluation.audit.result import Check, check
from evaluation.evaluated_model import evaluated_file

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

CHOSEN_BY = "val"
"""The part that a model did not learn from, but was chosen by."""


@dataclass(frozen=True)
class SeenPairs:
    """The pairs that a model has seen, by the hashes of their ids, since node numbers change from night to night.

    Shapes: hashes (2, K) of user and song; learned (K,), chosen_by (K,), how each was seen.
    """

    hashes: Ints
    learned: Mask
    chosen_by: Mask

    @classmethod
    def read(cls, source: Path) -> Self:
        """Of a bundle; raises InputError where a file of it is missing or unreadable."""
        known = _read(source / "seen.parquet")
        hashes = [_hashes(source, kind, known) for kind in ("user", "song")]
        part = np.array(known["part"].to_pylist(), dtype=str)
        learned = np.ones(len(part), dtype=bool) if saw_everything(source) else part == "train"
        return cls(np.stack(hashes), learned, (part == CHOSEN_BY) & ~learned)

    @classmethod
    def of(cls, graph: HeteroData) -> Self:
        """Of a model that was trained on a training graph, and chosen on its validation pairs."""
        pairs = GraphPairs(graph)
        hashes = [
            graph[kind].id_hash[ends].cpu().numpy() for kind, ends in zip(("user", "song"), pairs.edges, strict=True)
        ]
        return cls(np.stack(hashes), pairs.in_train.numpy(), pairs.parts[1].numpy())

    def nodes(self, graph: HeteroData) -> Ints:
        """(2, K) the pairs as nodes of a graph, -1 for an id that it lacks; raises InputError without id hashes."""
        ends = zip(("user", "song"), self.hashes, strict=True)
        return np.stack([_nodes(graph, kind, wanted) for kind, wanted in ends])


def check_warm_start(graph: HeteroData, source: Path) -> Check:
    """No pair that is held out now was seen by a model whose weights are taken over.

    Seen is what it learned from, and, of today's test pairs, also what it was chosen by. A validation pair of then may
    be one of now: it chooses twice, and teaches nothing. Pairs are matched by the hashes of their ids, since node
    numbers change from night to night.

    Args:
        graph: the training graph with masks and id hashes.
        source: the bundle of that model. ``users.parquet``, ``songs.parquet`` and ``seen.parquet`` are read, and its
            manifest: a model that was trained on everything has learned from its test pairs too.

    Raises:
        InputError: a file of the bundle is missing or unreadable, or the graph has no id hashes.
    """
    return check_seen_pairs(graph, SeenPairs.read(source))


def check_seen_pairs(graph: HeteroData, seen: SeenPairs) -> Check:
    """The same of pairs that are known already."""
    pairs, nodes = GraphPairs(graph), seen.nodes(graph)
    taught = contains(pairs.keys_of_known(nodes[:, seen.learned]), pairs.held_out)
    chose = contains(pairs.keys_of_known(nodes[:, seen.chosen_by]), pairs.held_out)
    found = int((taught | (chose & ~contains(pairs.validation, pairs.held_out))).sum())
    clean = "The model that this one starts from has seen no pair that is held out now."
    leak = "Pairs held out now that the model which this one starts from has seen: {found}."
    return check("warm start", found, clean, leak)


def saw_everything(source: Path) -> bool:
    """Whether the weights that a bundle offers to start from were trained on test pairs too.

    They are in-sample, or refitted on all listens without the evaluated model's beside them.
    """
    facts = _facts(source)
    present = {path.name for path in source.iterdir()}
    refitted = facts.get("refit") and not evaluated_file("model.safetensors", present)
    return bool(facts.get("in_sample") or refitted)


def num_ancestors(source: Path) -> int:
    """How many models stand behind a bundle, each of which the next one started from; 0 for one from random weights."""
    return max(0, len(_facts(source).get("seen_splits", ())) - 1)


def unknown_of(source: Path) -> tuple[str, ...]:
    """What the bundle does not tell about what its weights have seen."""
    said = "Of the days and plays behind the pairs that the earlier model saw, the audit knows nothing."
    earlier = num_ancestors(source)
    chain = f"The earlier model was itself warmed from {earlier} more, whose pairs are not in its bundle."
    return (said, chain) if earlier > 0 else (said,)


def _facts(source: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((source / "manifest.json").read_text(encoding="utf-8"))["facts"]
    except (OSError, ValueError, LookupError):
        raise _refused(source / "manifest.json") from None
    return facts


def _hashes(source: Path, kind: str, seen: pa.Table) -> Ints:
    """(K,) the id hash of each row's user or song."""
    hashes: Ints = _read(source / f"{kind}s.parquet")["id_hash"].to_numpy()
    return hashes[seen[kind].to_numpy()]


def _nodes(graph: HeteroData, kind: str, wanted: Ints) -> Ints:
    """(K,) the node of each hash, -1 where the graph has none."""
    if "id_hash" not in graph[kind]:
        raise InputError(f"The {kind} nodes of the graph have no id_hash, by which pairs of two runs are matched.")
    return rows_of(graph[kind].id_hash.cpu().numpy(), wanted)


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid):
        raise _refused(path) from None


def _refused(path: Path) -> InputError:
    return InputError(f"{path} cannot be read; give the folder of a bundle, as `python -m registry show` names it.")
