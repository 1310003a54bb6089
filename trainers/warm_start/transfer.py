"""Starts a training from the weights of an earlier model, in which the nodes had other numbers.

Node numbers change with every log; the hashes of the ids do not. So a row of a node table goes to the node of the same
id, rows of nodes that are gone are dropped, and a new node starts at the mean of its neighbours.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import NODE_TYPES, has_masks, update_digest
from data.vocabulary import rows_of
from evaluation.audit.result import Check
from evaluation.audit.seen_pairs import check_warm_start
from evaluation.evaluated_model import evaluated_file
from models.base import RecommenderModel
from trainers.loop.model_files import CONFIG, WEIGHTS
from trainers.warm_start.new_nodes import initialize_new_nodes

logger = logging.getLogger(__name__)

FILES = (WEIGHTS, CONFIG, *(f"{kind}s.parquet" for kind in NODE_TYPES))
"""Files of a bundle that the weights are read from."""

COUNTS = {f"num_{kind}s" for kind in NODE_TYPES}


@dataclass(frozen=True)
class EarlierModel:
    """A trained model with the ids of its nodes.

    Attributes:
        model_config: as the trainer was given it, all keys.
        weights: its state dict, on the CPU.
        id_hashes: (N,) int64 for each kind of node, in the order of its rows.
    """

    model_config: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    id_hashes: Mapping[str, Tensor]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the evaluated model of a bundle; raises InputError for a missing or damaged file."""
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_config"]
            hashes = {kind: pq.read_table(folder / f"{kind}s.parquet")["id_hash"].to_numpy() for kind in NODE_TYPES}
            evaluated = evaluated_file(WEIGHTS, {path.name for path in folder.iterdir()})
            weights = load_file(folder / (evaluated or WEIGHTS))
        except (OSError, ValueError, LookupError, pa.ArrowException, SafetensorError) as error:
            raise InputError(
                f"training_config.warm_start is '{folder}', which is not the folder of a sound bundle ({error}); "
                "give one, as `python -m registry show` names it."
            ) from None
        return cls(config, weights, {kind: torch.tensor(found) for kind, found in hashes.items()})

    @classmethod
    def of(cls, model: RecommenderModel, graph: HeteroData) -> Self:
        """Return a model in memory, with the graph that it was trained on."""
        weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        return cls(model.config.model_dump(mode="json"), weights, _id_hashes(graph))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of config, weights and ids."""
        digest = hashlib.sha256(json.dumps(self.model_config, sort_keys=True).encode())
        for name, value in sorted({**self.weights, **self.id_hashes}.items()):
            digest.update(name.encode())
            update_digest(digest, value)
        return digest.hexdigest()


def check_unseen(folder: Path, graph: HeteroData) -> None:
    """Raise InputError if the model of a bundle has seen pairs that the graph holds out."""
    if has_masks(graph):
        require_unseen(check_warm_start(graph, folder))


def require_unseen(found: Check) -> None:
    """Raise InputError if the check of the pairs that a model has seen did not pass."""
    if not found.passed:
        raise InputError(
            f"{found.says} Numbers of this training would be too good; start from a model of the same split "
            "(the same salt and ratios, or an earlier cut) that was not trained on everything, or remove warm_start."
        )


@torch.no_grad()
def start_from(earlier: EarlierModel, model: RecommenderModel, graph: HeteroData) -> dict[str, Tensor]:
    """Return the state dict with which ``model`` starts where the earlier one ended.

    Parameters without a row for each node are copied. Rows of nodes that both models know are moved. A new node starts
    at the mean of its neighbours (``trainers.warm_start.new_nodes``), or keeps its random row if none of them is known.

    Args:
        graph: of ``model``, with id hashes; only its train edges are read.

    Raises:
        InputError: the two models are of different kinds or sizes, or the graph has no id hashes.
    """
    _check_same_kind(earlier, model)
    state, rows = {name: value.clone() for name, value in model.state_dict().items()}, model.node_rows()
    places = {
        kind: torch.from_numpy(rows_of(earlier.id_hashes[kind].numpy(), hashes.numpy()))
        for kind, hashes in _id_hashes(graph).items()
    }
    for name, value in state.items():
        if name in rows:
            sizes = [model.config.num_nodes(kind) for kind in rows[name]]
            parts = dict(zip(rows[name], value.split(sizes), strict=True))
            before, known = _split_rows(earlier, name, rows[name]), {kind: places[kind] >= 0 for kind in parts}
            for kind, part in parts.items():
                part[known[kind]] = before[kind][places[kind][known[kind]]].to(part)
            initialize_new_nodes(parts, known, graph)
        else:
            value.copy_(earlier.weights[name])
    counts = (f"{int((found >= 0).sum()):,} of {len(found):,} {kind}s" for kind, found in places.items())
    logger.info("Starting from an earlier model, which knows %s.", ", ".join(counts))
    return state


def _check_same_kind(earlier: EarlierModel, model: RecommenderModel) -> None:
    ours, theirs = model.config.model_dump(mode="json"), earlier.model_config
    differing = [key for key in ours if key not in COUNTS and ours[key] != theirs.get(key)]
    per_node = model.node_rows()

    def fits(name: str, value: Tensor) -> bool:
        first = 1 if name in per_node else 0  # the number of rows may differ
        return name in earlier.weights and value.shape[first:] == earlier.weights[name].shape[first:]

    if "architecture" in differing or not all(fits(*named) for named in model.state_dict().items()):
        differences = ", ".join(f"{key} {theirs.get(key)!r} in place of {ours[key]!r}" for key in differing)
        raise InputError(
            f"The model to start from has other weights than this one ({differences or 'its class has changed'}); "
            "give both the same model_config, or remove warm_start."
        )


def _split_rows(earlier: EarlierModel, name: str, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the earlier rows of each kind of node; none if there was no node of a kind."""
    counts = [len(earlier.id_hashes[kind]) for kind in kinds]
    wanted = earlier.weights[name][: sum(counts)]  # rows of artists may follow, of which this model has none
    return dict(zip(kinds, wanted.split(counts), strict=True))


def _id_hashes(graph: HeteroData) -> dict[str, Tensor]:
    absent = [kind for kind in NODE_TYPES if "id_hash" not in graph[kind]]
    if absent:
        raise InputError(
            f"The {absent[0]} nodes of the graph have no id_hash, by which a warm start finds their weights; "
            "add it as int64, or remove warm_start."
        )
    return {kind: graph[kind].id_hash.cpu() for kind in NODE_TYPES}
