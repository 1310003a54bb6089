"""Check that the earlier model, from which a training starts, has not seen pairs that are held out now."""

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
"""The part by which a model was chosen; it did not learn from it."""


@dataclass(frozen=True)
class SeenPairs:
    """The pairs that a model has seen, as hashes of their ids, since node numbers change from run to run."""

    hashes: Ints
    """(2, K) hashes of user and song."""
    learned: Mask
    """(K,) True if the model learned from the pair."""
    chosen_by: Mask
    """(K,) True if the model was chosen by the pair, and did not learn from it."""

    @classmethod
    def read(cls, source: Path) -> Self:
        """Read the pairs that a bundle's model has seen; raises InputError if a file is missing or unreadable."""
        seen = _read(source / "seen.parquet")
        hashes = [
            _read(source / f"{kind}s.parquet")["id_hash"].to_numpy()[seen[kind].to_numpy()] for kind in ("user", "song")
        ]
        part = np.array(seen["part"].to_pylist(), dtype=str)
        learned = np.ones(len(part), dtype=bool) if saw_everything(source) else part == "train"
        return cls(np.stack(hashes), learned, (part == CHOSEN_BY) & ~learned)

    @classmethod
    def of(cls, graph: HeteroData) -> Self:
        """Return the pairs that a model sees if it is trained and chosen on this training graph."""
        pairs = GraphPairs(graph)
        hashes = [
            graph[kind].id_hash[ends].cpu().numpy() for kind, ends in zip(("user", "song"), pairs.edges, strict=True)
        ]
        return cls(np.stack(hashes), pairs.in_train.numpy(), pairs.parts[1].numpy())

    def nodes(self, graph: HeteroData) -> Ints:
        """Return the pairs (2, K) as nodes of a graph, -1 if the graph lacks the id.

        Raises:
            InputError: the graph has no id hashes.
        """
        nodes = []
        for kind, hashes in zip(("user", "song"), self.hashes, strict=True):
            if "id_hash" not in graph[kind]:
                raise InputError(
                    f"The {kind} nodes of the graph have no id_hash, by which pairs of two runs are matched."
                )
            nodes.append(rows_of(graph[kind].id_hash.cpu().numpy(), hashes))
        return np.stack(nodes)


def check_warm_start(graph: HeteroData, source: Path) -> Check:
    """Check that the model of a bundle, from which a training starts, has not seen a pair that is held out now.

    The model has seen the pairs that it learned from. It has also seen the pairs that it was chosen by; these count as
    seen only if they are test pairs now. A pair may be for validation both times: then it chooses twice and teaches
    nothing. Pairs are matched by the hashes of their ids, since node numbers change from run to run.

    Args:
        graph: the training graph with masks and id hashes.
        source: the bundle. Its files ``users.parquet``, ``songs.parquet``, ``seen.parquet`` and ``manifest.json`` are
            read. The manifest says if the model was trained on everything, test pairs included.

    Raises:
        InputError: a file of the bundle is missing or unreadable, or the graph has no id hashes.
    """
    return check_seen_pairs(graph, SeenPairs.read(source))


def check_seen_pairs(graph: HeteroData, seen: SeenPairs) -> Check:
    """Do the check of ``check_warm_start`` with given pairs."""
    pairs, nodes = GraphPairs(graph), seen.nodes(graph)
    learned = contains(pairs.keys_of_known(nodes[:, seen.learned]), pairs.held_out)
    chosen_by = contains(pairs.keys_of_known(nodes[:, seen.chosen_by]), pairs.held_out)
    found = int((learned | (chosen_by & ~contains(pairs.validation, pairs.held_out))).sum())
    clean = "The model that this one starts from has seen no pair that is held out now."
    leak = "Pairs held out now that the model which this one starts from has seen: {found}."
    return check("warm start", found, clean, leak)


def saw_everything(source: Path) -> bool:
    """Return True if the weights of a bundle, from which a training would start, were trained on test pairs too.

    They are in-sample, or refitted on all listens without the evaluated model's beside them.
    """
    facts = _facts(source)
    present = {path.name for path in source.iterdir()}
    refitted = facts.get("refit") and not evaluated_file("model.safetensors", present)
    return bool(facts.get("in_sample") or refitted)


def num_ancestors(source: Path) -> int:
    """Count the earlier models in the chain of warm starts of a bundle; 0 if it started from random weights."""
    return max(0, len(_facts(source).get("seen_splits", ())) - 1)


def warm_start_unknowns(source: Path) -> tuple[str, ...]:
    """Return sentences about what the bundle does not say about the pairs that its weights have seen."""
    days = "The audit does not know on which days the earlier model saw its pairs, nor how often they were played."
    ancestors = num_ancestors(source)
    chain = f"The earlier model was itself warmed from {ancestors} more, whose pairs are not in its bundle."
    return (days, chain) if ancestors > 0 else (days,)


def _facts(source: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((source / "manifest.json").read_text(encoding="utf-8"))["facts"]
    except (OSError, ValueError, LookupError):
        raise _unreadable(source / "manifest.json") from None
    return facts


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid):
        raise _unreadable(path) from None


def _unreadable(path: Path) -> InputError:
    return InputError(f"{path} cannot be read; give the folder of a bundle, as `python -m registry show` names it.")
