"""Train a trainer with the settings of a run, and measure its time and its metrics; all claims use this."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch_geometric.data import HeteroData

from data.graph import node_counts
from evaluation.evaluation import evaluate
from tasks.run_config import RunConfig
from trainers.base import BaseTrainer
from trainers.factory import create_trainer


def create(name: str, run: RunConfig, graph: HeteroData, folder: Path, **training: Any) -> BaseTrainer:
    """Create a trainer with the model and the settings of a run.

    Args:
        name: name of the trainer.
        run: its tables ``model`` and ``training`` are used.
        graph: gives the node counts.
        folder: the trainer's output folder.
        training: settings that replace those of the run.
    """
    config = {**run.training, "resume": False, **training}
    trainer = create_trainer(name, {**run.model, **node_counts(graph)}, config, folder)
    trainer.tests_at_end = False
    return trainer


@dataclass(frozen=True)
class TrainedModel:
    """A trainer after its training, and the time that it took."""

    trainer: BaseTrainer
    graph: HeteroData
    results: Mapping[str, Any]
    """The return value of ``BaseTrainer.train``."""
    seconds: float
    cpu_seconds: float

    def per_user(self, metric: str, k: int) -> np.ndarray:
        """Measure a metric (N,) on the test listens of all users."""
        values = evaluate(self.trainer.score(self.graph), self.graph, "test", k).per_user[metric]
        return values.numpy()


def train(trainer: BaseTrainer, graph: HeteroData, num_epochs: int, cpu_budget: float | None = None) -> TrainedModel:
    """Train, and measure the time.

    Args:
        trainer: the trainer.
        graph: a training graph.
        num_epochs: maximum number of epochs.
        cpu_budget: stop after the epoch in which these CPU seconds are over.
    """
    started, cpu_started = time.perf_counter(), time.process_time()
    if cpu_budget is not None:
        trainer.epoch_callback = lambda history: time.process_time() - cpu_started >= cpu_budget
    results = trainer.train(graph, num_epochs)
    cpu_seconds, seconds = time.process_time() - cpu_started, time.perf_counter() - started
    return TrainedModel(trainer, graph, results, seconds, cpu_seconds)


def cpu_seconds_of(function: Callable[..., object], *arguments: object, **options: object) -> float:
    """Call a function and return the CPU seconds that it took."""
    started = time.process_time()
    function(*arguments, **options)
    return time.process_time() - started
