"""Measure one row of ``comparison.py`` in its own process: train or fit it, measure it, and write time and memory.

It first trains or fits on a small part of the graph, so that libraries and compiled loops are loaded before it measures
time.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from meters import forget_peak, peak
from row_names import ROWS, TRAINED, compared
from torch import Tensor
from torch_geometric.data import HeteroData

from data.code.lookup import find_class
from data.graph import LISTENS, load_graph, node_counts
from evaluation.baselines.choices import create_baseline
from evaluation.evaluation import Evaluation, evaluate
from evaluation.parts import Part, part_edges, sample_users
from evaluation.ranking import Score
from models.architectures import MODELS
from models.base import RecommenderModel
from models.factory import create_model
from tasks.run_config import RunConfig, load_run_config
from trainers.advanced import AdvancedTrainer
from trainers.factory import parse_training_config

FIRST_POINT, GROWTH = 0.5, 1.25
"""Seconds of training at the first point of the curve, and the factor to the next point within an epoch."""

PARTS: tuple[Part, Part] = ("val", "test")
WARM_UP_USERS = 64
"""Users in the small graph of the warm-up."""


class Clock:
    """Seconds since it was created, without those of measurements."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.validation = self.extra = 0.0

    @property
    def training(self) -> float:
        """Seconds of training, with the preparation of the graph and without validation."""
        return time.perf_counter() - self.started - self.validation - self.extra

    @property
    def fit(self) -> float:
        """Seconds of training and of the validation that chooses the epoch."""
        return self.training + self.validation

    @contextmanager
    def measuring(self, kind: str) -> Iterator[None]:
        """Count the seconds of the block as ``validation`` or as ``extra``."""
        started = time.perf_counter()
        yield
        setattr(self, kind, getattr(self, kind) + time.perf_counter() - started)


class TimedTrainer(AdvancedTrainer):
    """``AdvancedTrainer`` that records its quality against its seconds, and stops when its time is over.

    A point of the curve is measured after each epoch, and within epochs each time the seconds have grown by a quarter.
    Measuring draws no random numbers, so the weights are those of ``AdvancedTrainer``.

    Attributes:
        budget: seconds of ``Clock.fit`` after which no further epoch starts.
        curve: points, see ``_point``.
    """

    budget = math.inf

    def train(self, graph: HeteroData, num_epochs: int) -> Any:
        """See ``BaseTrainer.train``; the clock starts here."""
        self.curve: list[dict[str, Any]] = []
        self.clock, self.steps, self.next_point = Clock(), 0, FIRST_POINT
        self.epoch_callback = lambda history: self.clock.fit >= self.budget
        return super().train(graph, num_epochs)

    def prepare(self, graph: HeteroData) -> HeteroData:
        """Keep the graph with masks for the points within an epoch."""
        self.whole = super().prepare(graph)
        return self.whole

    def step(self, loss: Tensor) -> float:
        """Do a step, and measure a point of the curve if it is time for one."""
        value = super().step(loss)
        self.steps += 1
        if self.clock.training >= self.next_point:
            seconds = self.clock.training
            with self.clock.measuring("extra"):
                self._point(seconds, self.ranking_metrics(self.whole, "val"), whole_epoch=False)
            self.model.train()
        return value

    def evaluate(self, graph: HeteroData) -> dict[str, float]:
        """Compute the metrics on the validation edges, and add them to the curve."""
        seconds = self.clock.training
        with self.clock.measuring("validation"):
            metrics = super().evaluate(graph)
        self._point(seconds, metrics, whole_epoch=True)
        return metrics

    def _point(self, seconds: float, metrics: Mapping[str, float], whole_epoch: bool) -> None:
        self.next_point = max(FIRST_POINT, seconds) * GROWTH
        point = {"seconds": seconds, "epoch": self.current_epoch, "step": self.steps, "whole_epoch": whole_epoch}
        self.curve.append({**point, **{name: metrics[name] for name in compared(self.config.eval_k)}})

    def why_stopped(self, epochs: int) -> str:
        """Return what ended the training: patience, budget or epochs."""
        if self.out_of_patience():
            return "patience"
        return "budget" if self.current_epoch < epochs else "epochs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", required=True, choices=ROWS)
    parser.add_argument("--config", required=True)
    parser.add_argument("--graph", required=True, type=Path, help="what `config_graph.training_graph` made")
    parser.add_argument("--out", required=True, type=Path, help="folder for measured.json and users.npz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="whose samples of users a baseline is measured on")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--budget", type=float, default=math.inf)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    run, graph = load_run_config(chosen.config), load_graph(chosen.graph)
    found = (train_row if chosen.row in TRAINED else fit_row)(chosen, run, graph)
    found["num_songs"] = int(graph["song"].num_nodes)
    found["num_users"] = int(part_edges(graph, "test")[0].unique().numel())
    (chosen.out / "measured.json").write_text(json.dumps(rounded(found)))


def train_row(chosen: argparse.Namespace, run: RunConfig, graph: HeteroData) -> dict[str, Any]:
    """Train a model, and measure its best epoch."""
    warm_up, small = time.perf_counter(), small_graph(graph)
    create_row_trainer(chosen, run, small).train(small, 1)
    warm_up = time.perf_counter() - warm_up
    before = memory_now()
    trainer = create_row_trainer(chosen, run, graph)
    trainer.budget, trainer.tests_at_end = chosen.budget, False
    results = trainer.train(graph, chosen.epochs)
    fit, training = trainer.clock.fit, trainer.clock.training
    measure(trainer.score(graph), graph, trainer.config.eval_k, chosen.out)
    return {
        "fit_seconds": fit,
        "training_seconds": training,
        "warm_up_seconds": warm_up,
        **memory_since(before),
        "stopped": trainer.why_stopped(chosen.epochs),
        "epochs": results["epochs_run"],
        "best_epoch": results["best_epoch"],
        "curve": trainer.curve,
    }


def create_row_trainer(chosen: argparse.Namespace, run: RunConfig, graph: HeteroData) -> TimedTrainer:
    """Create the row's trainer with the keys of the config that the row's architecture has."""
    model = {**model_config(TRAINED[chosen.row], run.model), **node_counts(graph)}
    training = {**run.training, "seed": chosen.seed}
    if not create_model(model).num_hops:
        training = {key: value for key, value in training.items() if key not in ("num_neighbors", "fan_out")}
    return TimedTrainer(
        model_config=model,
        training_config={**training, "resume": False},
        output_dir=chosen.out / "training",
    )


def model_config(architecture: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a config's table ``model`` that an architecture has."""
    kind: type[RecommenderModel] = find_class("architecture", architecture, MODELS, RecommenderModel)
    known = {key: value for key, value in table.items() if key in kind.Config.model_fields}
    return {**known, "architecture": architecture}


def fit_row(chosen: argparse.Namespace, run: RunConfig, graph: HeteroData) -> dict[str, Any]:
    """Fit a baseline with its defaults, and measure it."""
    baseline = create_baseline(chosen.row)
    if why := baseline.why_not(graph):
        return {"left_out": why}
    warm_up, small = time.perf_counter(), small_graph(graph)
    if not baseline.why_not(small):
        baseline.fit(small)
    warm_up = time.perf_counter() - warm_up
    before, started = memory_now(), time.perf_counter()
    score = baseline.fit(graph)
    seconds = time.perf_counter() - started
    config = parse_training_config("advanced", run.training)
    validation = measure(score, graph, config.eval_k, chosen.out)
    return {
        "fit_seconds": seconds,
        "warm_up_seconds": warm_up,
        **memory_since(before),
        "watched": [mean_of_sample(validation, config.num_eval_users, seed) for seed in range(chosen.seeds)],
    }


def measure(score: Score, graph: HeteroData, k: int, folder: Path) -> Evaluation:
    """Write recall and NDCG of every user on the validation and the test listens; return the validation."""
    found = {part: evaluate(score, graph, part, k) for part in PARTS}
    columns: dict[str, Any] = {
        f"{part} {metric}": found[part].per_user[metric].numpy() for part in found for metric in compared(k)
    }
    np.savez(folder / "users.npz", **columns)
    return found["val"]


def mean_of_sample(validation: Evaluation, num_users: int | None, seed: int) -> dict[str, float]:
    """Average the metrics over the users that a training with ``seed`` samples for validation."""
    rows = torch.searchsorted(validation.users, sample_users(validation.users, num_users, seed))
    return {metric: float(validation.per_user[metric][rows].mean()) for metric in compared(validation.k)}


def rounded(found: Any) -> Any:
    """Round all floats of plain JSON to six digits after the point."""
    if isinstance(found, Mapping):
        return {key: rounded(value) for key, value in found.items()}
    if isinstance(found, list):
        return [rounded(value) for value in found]
    return round(found, 6) if isinstance(found, float) else found


def small_graph(graph: HeteroData) -> HeteroData:
    """Return the graph of the first few users and their songs."""
    users, songs = graph[LISTENS].edge_index
    of_users = songs[users < WARM_UP_USERS].unique()
    return graph.subgraph({"user": torch.arange(min(WARM_UP_USERS, int(graph["user"].num_nodes))), "song": of_users})


def memory_now() -> int:
    """Reset the peak memory if the system can, and return the resident bytes now."""
    gc.collect()
    return forget_peak()


def memory_since(before: int) -> dict[str, int]:
    """Return the peak bytes of this process, and the bytes before."""
    return {"peak_bytes": peak(), "start_bytes": before}


if __name__ == "__main__":
    main()
