"""MultiTaskTrainer: does it predict completion better than the song's mean, and what does this cost the ranking?

The labels of the test pairs come from the graph before the split, so no training, calibration or choice has seen them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch_geometric.data import HeteroData

from claims.claim import Claim
from claims.synthetic_log import default_run, synthetic_graph
from claims.training import create, train
from data.graph import LISTENS
from evaluation.seed_comparison import Run, across_seeds, difference, format_difference
from tasks.run_config import RunConfig
from trainers.multitask.label_metrics import ItemMeans, Labelled, auc, calibration_error
from trainers.multitask.labels import train_targets
from trainers.multitask.multitask_trainer import MultiTaskTrainer
from trainers.sampling import train_pairs

K = 10
RECALL = f"recall@{K}"
OTHERS = ("lightgcn", "mf")
"""Further models to compare the ranking of. They lose the calibration pairs to the tasks."""


class LabelledLog(NamedTuple):
    """The training graph, its test pairs (2, P), and their completion (P,), which the training graph does not have."""

    graph: HeteroData
    pairs: torch.Tensor
    completion: np.ndarray

    def errors_of_users(self, predicted: np.ndarray) -> np.ndarray:
        """Return each user's mean squared error (N,)."""
        _, row, count = np.unique(self.pairs[0].numpy(), return_inverse=True, return_counts=True)
        errors: np.ndarray = np.bincount(row, np.square(predicted - self.completion)) / count
        return errors


class Measured(NamedTuple):
    """The measurements of one training."""

    run: Run
    """Per-user metrics."""
    seconds: float
    """CPU seconds of the training, with the trainer's own test."""
    predicted: np.ndarray
    """(P,) predicted completion of the test pairs; empty for AdvancedTrainer."""
    own_metrics: dict[str, float]
    """Test metrics of the trainer itself."""


def claims(seeds: Sequence[int], folder: Path) -> list[Claim]:
    """Return a row for the prediction by the default model, and a row for the ranking of each model."""
    run = default_run()
    log = labelled_log(run, folder)
    rows = []
    for architecture in ("gat", *OTHERS):
        of_model = run.model_copy(update={"model": {**run.model, "architecture": architecture}})
        home = folder / architecture
        advanced = [measure("advanced", of_model, log, seed, home) for seed in seeds]
        multitask = [measure("multitask", of_model, log, seed, home) for seed in seeds]
        cost = sum(one.seconds for one in multitask) / sum(one.seconds for one in advanced)
        if architecture == "gat":
            rows.append(completion_row(log, multitask, cost))
        rows.append(recall_row(architecture, multitask, advanced, cost))
    return rows


def labelled_log(run: RunConfig, folder: Path) -> LabelledLog:
    """Make the log of ``make train`` with its split."""
    log = synthetic_graph(run.synthetic, folder)
    whole, graph = log.whole, log.split(run.split)
    test = graph[LISTENS].test_mask
    return LabelledLog(graph, whole[LISTENS].edge_index[:, test], whole[LISTENS].completion[test].double().numpy())


def measure(name: str, run: RunConfig, log: LabelledLog, seed: int, folder: Path) -> Measured:
    """Train with the settings of ``make train``, and measure on the test pairs of all users."""
    trainer = create(name, run, log.graph, folder / name / str(seed), seed=seed, eval_k=K)
    trainer.tests_at_end = True
    model = train(trainer, log.graph, run.num_epochs)
    recall, own_metrics = model.per_user(RECALL, K), model.results["test"]
    if not isinstance(trainer, MultiTaskTrainer):
        return Measured({RECALL: recall}, model.cpu_seconds, np.zeros(0), own_metrics)
    predicted = trainer.predict("completion", *log.pairs).double().numpy()
    run_of_seed = {RECALL: recall, "error": log.errors_of_users(predicted)}
    return Measured(run_of_seed, model.cpu_seconds, predicted, own_metrics)


def completion_row(log: LabelledLog, measured: Sequence[Measured], cost: float) -> Claim:
    """Compare the squared error with that of each song's mean, plain and shrunk towards the mean of all songs."""
    runs = [one.run for one in measured]
    gains = [
        difference([{"error": log.errors_of_users(means)}], [{"error": run["error"]} for run in runs], 0)["error"]
        for means in song_means(log)
    ]
    area = np.mean([auc(one.predicted, log.completion) or 0.5 for one in measured])
    ece = np.mean([calibration_error(one.predicted, log.completion) for one in measured])
    own = np.mean([one.own_metrics["completion_auc"] for one in measured])
    error = across_seeds(runs, 0)["error"]
    text = (
        f"error {error.mean:.4f}; less than the shrunk mean by {format_difference(gains[1])}; than the plain mean by "
        f"{format_difference(gains[0])}; AUC {area:.3f} (on the trainer's own kept pairs {own:.3f}), calibration error "
        f"{ece:.3f}"
    )
    what = "completion of new pairs: less squared error than the per-song mean, shrunk or not"
    return Claim("multitask", what, text, all(gain.low > 0 for gain in gains), cost)


def song_means(log: LabelledLog) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean completion (P,) of each test pair's song in train: plain, and shrunk to the mean of all songs."""
    users, songs = train_pairs(log.graph).numpy()
    targets = train_targets(log.graph, lambda listens: listens.completion).double().numpy()
    means = ItemMeans(Labelled(users, songs, targets), int(log.graph["song"].num_nodes))
    asked = log.pairs[1].numpy()
    count = means.count[asked]
    plain = np.divide(means.total[asked], count, out=np.full(len(asked), means.overall), where=count > 0)
    return plain, means(asked)


def recall_row(architecture: str, multitask: Sequence[Measured], advanced: Sequence[Measured], cost: float) -> Claim:
    """Compare the ranking with that of AdvancedTrainer."""
    both = [[{RECALL: one.run[RECALL]} for one in measured] for measured in (multitask, advanced)]
    gap = difference(*both, seed=0)[RECALL]
    levels = [across_seeds(runs, 0)[RECALL].mean for runs in both]
    text = f"{levels[0]:.4f}, advanced {levels[1]:.4f}: {format_difference(gap)}"
    what = f"no loss of {RECALL} with {architecture}: the interval does not lie below 0"
    return Claim("multitask", what, text, gap.high >= 0, cost)
