"""Measure each part of the default model: train without it, on validation, with several seeds and paired intervals.

Every variant is the config's own training with one change. Test listens are not used. Finished trainings are kept in
--folder, so that the same command continues a stopped run, as long as config and code are the same.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from config_graph import missing_data, training_graph
from machine import code, print_where
from row_names import compared
from torch import Tensor
from torch_geometric.data import HeteroData

from data.graph import load_graph, node_counts, set_by
from evaluation.evaluation import evaluate
from evaluation.seed_comparison import Run, across_seeds, difference, is_difference
from models.base import Embeddings
from models.gat import GAT, GATConfig
from tasks.run_config import RunConfig, load_run_config
from trainers.advanced import AdvancedTrainer
from trainers.objective import PairObjective


class WithoutVectors(GAT):
    """The local channel only: every vector is zero."""

    def node_vectors(self, graph: HeteroData, left_out: Tensor | None = None) -> Tensor:
        return self.table * 0


class WithoutAttention(GAT):
    """Messages weighted by the symmetric degree normalisation only: attention starts there, and here does not learn."""

    def __init__(self, config: GATConfig) -> None:
        super().__init__(config)
        for parameter in self.layers.parameters():
            parameter.requires_grad_(False)


class KeepsOwnEdges(GAT):
    """Message passing over the edges of a batch's own pairs too."""

    def encode_without(self, graph: HeteroData, pairs: Tensor) -> Embeddings:
        return self.encode(graph)


class _KeepsNoPairs(PairObjective):
    """The objective without calibration pairs: the vectors learn from all pairs."""

    def __init__(self, trainer: AdvancedTrainer) -> None:
        super().__init__(trainer.config)
        self.calibration.contains = lambda graph, pairs: torch.zeros(pairs.shape[1], dtype=torch.bool)  # type: ignore[method-assign]


class WithoutCalibration(AdvancedTrainer):
    """Lets the vectors learn from the pairs that calibrate the channels."""

    def prepare(self, graph: HeteroData) -> HeteroData:
        self.objective = _KeepsNoPairs(self)
        return super().prepare(graph)


@dataclass(frozen=True)
class Variant:
    """One change to a config."""

    description: str
    model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    trainer: type[AdvancedTrainer] = AdvancedTrainer
    artists: bool = True


def _without(kind: type[GAT]) -> dict[str, Any]:
    return {"architecture": f"ablation:{kind.__name__}"}


VARIANTS = {
    "full": Variant("the config as it is"),
    "no-local": Variant("no local channel", model={"local": False}),
    "no-vectors": Variant("no vectors: local channel alone", model=_without(WithoutVectors)),
    "no-attention": Variant("vectors by degrees, no attention", model=_without(WithoutAttention)),
    "no-artists": Variant("no artists in the graph", artists=False),
    "own-edges": Variant("a batch's own edges pass messages", model=_without(KeepsOwnEdges)),
    "no-calibration": Variant("vectors learn calibration pairs", trainer=WithoutCalibration),
    "fan-out": Variant("steps on sampled neighbourhoods", training={"num_neighbors": [20, 10]}),
    "bpr": Variant("vectors by BPR", training={"loss": "bpr", "num_negatives": None}),
    "lightgcn": Variant("lightgcn, softmax", model={"architecture": "lightgcn", "heads": None, "local": None}),
    "mf": Variant("mf, softmax", model={"architecture": "mf", "heads": None, "num_layers": None, "local": None}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/lastfm-tracks.toml", help="the config (default: %(default)s)")
    parser.add_argument("--folder", type=Path, required=True, help="finished trainings are kept here")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each variant (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="instead of the config's num_epochs")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    chosen = parser.parse_args()
    print_where()
    print(f"config   {chosen.config}")
    if absent := missing_data(chosen.config):
        raise SystemExit(absent)
    run = load_run_config(chosen.config)
    folder = chosen.folder / key(run)
    graph = load_graph(training_graph(chosen.config, folder / "project"))
    epochs, seeds = chosen.epochs or run.num_epochs, range(chosen.seeds)
    runs = {name: [read_or_train(name, run, graph, epochs, seed, folder) for seed in seeds] for name in chosen.variants}
    print_table(runs)


def key(run: RunConfig) -> str:
    """Return a digest of everything that the numbers of one table must share."""
    return hashlib.sha256((run.model_dump_json() + code()).encode()).hexdigest()[:16]


def read_or_train(name: str, run: RunConfig, graph: HeteroData, epochs: int, seed: int, folder: Path) -> Run:
    """Return the metrics of each user on the validation listens; read them if an earlier run measured them."""
    path = folder / f"{name}-{epochs}-{seed}.npz"
    if not path.is_file():
        print(f"training {name}, seed {seed}", flush=True)
        np.savez(path, **train_and_measure(VARIANTS[name], run, graph, epochs, seed, folder / "training"))
    with np.load(path) as stored:
        return dict(stored)


def train_and_measure(
    variant: Variant, run: RunConfig, graph: HeteroData, epochs: int, seed: int, folder: Path
) -> dict[str, np.ndarray]:
    """Train a variant, and measure it on the validation listens of every user."""
    graph = graph if variant.artists else without_artists(graph)
    trainer = variant.trainer(
        model_config=_changed({**run.model, **node_counts(graph)}, variant.model),
        training_config=_changed({**run.training, "seed": seed, "resume": False}, variant.training),
        output_dir=folder,
    )
    trainer.tests_at_end = False
    trainer.train(graph, num_epochs=epochs)
    measured = evaluate(trainer.score(graph), graph, "val", trainer.config.eval_k, None, seed)
    return {metric: measured.per_user[metric].numpy() for metric in compared(trainer.config.eval_k)}


def without_artists(graph: HeteroData) -> HeteroData:
    """Return the graph without artists."""
    copy = graph.clone()
    set_by(copy, torch.empty(2, 0, dtype=torch.long))
    copy["artist"].num_nodes = 0
    return copy


def print_table(runs: Mapping[str, list[Run]]) -> None:
    """Print a line per variant: its numbers, and their difference to the first variant."""
    first = next(iter(runs))
    recall, ndcg = runs[first][0]
    print(f"\n{'variant':<34}{recall:>10}{ndcg:>9}   {ndcg} against {first}")
    for name, seeds in runs.items():
        means = across_seeds(seeds, seed=0)
        row = f"{VARIANTS[name].description:<34}{means[recall].mean:>10.4f}{means[ndcg].mean:>9.4f}"
        if name != first:
            gap = difference(seeds, runs[first], seed=0)[ndcg]
            mark = "" if is_difference(gap) else " (none shown)"
            row += f"   {gap.mean:+.4f} ({gap.low:+.4f}, {gap.high:+.4f}){mark}"
        print(row)
    print(f"validation listens of all users; {len(runs[first])} seeds; 95 % intervals over users and seeds")


def _changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with changes; None removes a key."""
    return {key: value for key, value in {**config, **changes}.items() if value is not None}


if __name__ == "__main__":
    main()
