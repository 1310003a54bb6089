"""MultiTaskTrainer: whether completion is predicted better than by the song alone, and what that costs the ranking.

The labels of the test pairs come from the graph before it was split, so that no training, correction or choice has
seen them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch_geometric.data import HeteroData

from claims.claim import Claim
from claims.made_up import made_up, usual_run
from data.graph import LISTENS, node_counts
from evaluation.evaluation import evaluate
from evaluation.seed_comparison import Run, across_seeds, difference, format_difference
from evaluation.statistics.intervals import Interval
from tasks.run_config import RunConfig
from trainers.advanced import AdvancedTrainer
from trainers.multitask.label_metrics import ItemMeans, Labelled, auc, calibration_error
from trainers.multitask.labels import train_targets
from trainers.multitask.multitask_trainer import MultiTaskTrainer
from trainers.sampling import train_pairs

K = 10
RECALL = f"recall@{K}"
OTHERS = ("lightgcn", "mf")
"""Models beside the default one whose ranking is compared: theirs gives the calibration pairs up for the tasks."""


class Log(NamedTuple):
    """The training graph, its test pairs (2, P), and their completion (P,), which the training graph does not hold."""

    graph: HeteroData
    pairs: torch.Tensor
    completion: np.ndarray

    def users_means(self, values: np.ndarray) -> np.ndarray:
        """Mean over each user's test pairs of (P,): (N,) by user."""
        _, row, count = np.unique(self.pairs[0].numpy(), return_inverse=True, return_counts=True)
        means: np.ndarray = np.bincount(row, values) / count
        return means

    def users_errors(self, predicted: np.ndarray) -> np.ndarray:
        """(N,) each user's mean squared error."""
        return self.users_means(np.square(predicted - self.completion))


class Trained(NamedTuple):
    """Per-user metrics, CPU seconds, predicted completion (P,) of the test pairs, and what the trainer itself says."""

    run: Run
    seconds: float
    predicted: np.ndarray
    told: dict[str, float]


def claims(seeds: Sequence[int], folder: Path) -> list[Claim]:
    """The prediction by the default model, and the ranking of each model beside that of AdvancedTrainer."""
    run = usual_run()
    log = made_up_log(run, folder)
    rows = []
    for architecture in ("gat", *OTHERS):
        model = {**run.model, "architecture": architecture, **node_counts(log.graph)}
        home = folder / architecture
        advanced = [train(AdvancedTrainer, run, model, log, seed, home) for seed in seeds]
        multitask = [train(MultiTaskTrainer, run, model, log, seed, home) for seed in seeds]
        cost = sum(one.seconds for one in multitask) / sum(one.seconds for one in advanced)
        if architecture == "gat":
            rows.append(completion_row(log, multitask, cost))
        rows.append(recall_row(architecture, multitask, advanced, cost))
    return rows


def made_up_log(run: RunConfig, folder: Path) -> Log:
    """The log of ``make train``, split as there."""
    log = made_up(run.synthetic, folder)
    whole, graph = log.whole, log.split(run.split)
    test = graph[LISTENS].test_mask
    return Log(graph, whole[LISTENS].edge_index[:, test], whole[LISTENS].completion[test].double().numpy())


def train(
    kind: type[AdvancedTrainer], run: RunConfig, model: dict[str, Any], log: Log, seed: int, folder: Path
) -> Trained:
    """Train with the settings of ``make train``, and measure on the test pairs of all users."""
    training: dict[str, Any] = {**run.training, "seed": seed, "eval_k": K}
    trainer = kind(model, training, folder / kind.__name__ / str(seed))
    started = time.process_time()
    told = trainer.train(log.graph, run.num_epochs)["test"]
    seconds = time.process_time() - started
    recall = evaluate(trainer.score(log.graph), log.graph, "test", K).per_user[RECALL].numpy()
    if not isinstance(trainer, MultiTaskTrainer):
        return Trained({RECALL: recall}, seconds, np.zeros(0), told)
    predicted = trainer.predict("completion", *log.pairs).double().numpy()
    return Trained({RECALL: recall, "error": log.users_errors(predicted)}, seconds, predicted, told)


def completion_row(log: Log, trained: Sequence[Trained], cost: float) -> Claim:
    """Squared error against that of each song's mean, plain and drawn towards the mean of all songs."""
    plain, shrunk = song_means(log)
    runs = [one.run for one in trained]
    gains = [_gain(log, runs, predicted) for predicted in (plain, shrunk)]
    area = np.mean([auc(one.predicted, log.completion) or 0.5 for one in trained])
    off = np.mean([calibration_error(one.predicted, log.completion) for one in trained])
    own = np.mean([one.told["completion_auc"] for one in trained])
    error = across_seeds(runs, 0)["error"]
    measured = (
        f"error {error.mean:.4f}; less than the shrunk mean by {format_difference(gains[1])}; than the plain mean by "
        f"{format_difference(gains[0])}; AUC {area:.3f} (on the trainer's own kept pairs {own:.3f}), calibration error "
        f"{off:.3f}"
    )
    what = "completion of new pairs: less squared error than the per-song mean, shrunk or not"
    return Claim("multitask", what, measured, all(gain.low > 0 for gain in gains), cost)


def song_means(log: Log) -> tuple[np.ndarray, np.ndarray]:
    """Of each test pair's song, the mean completion in the train pairs (P,), and that drawn to the mean of all (P,)."""
    users, songs = train_pairs(log.graph).numpy()
    targets = train_targets(log.graph, lambda listens: listens.completion).double().numpy()
    means = ItemMeans(Labelled(users, songs, targets), int(log.graph["song"].num_nodes))
    asked = log.pairs[1].numpy()
    count = means.count[asked]
    plain = np.divide(means.total[asked], count, out=np.full(len(asked), means.overall), where=count > 0)
    return plain, means(asked)


def recall_row(model: str, trained: Sequence[Trained], advanced: Sequence[Trained], cost: float) -> Claim:
    """The ranking beside that of AdvancedTrainer."""
    both = [[{RECALL: one.run[RECALL]} for one in side] for side in (trained, advanced)]
    gap = difference(*both, seed=0)[RECALL]
    levels = [across_seeds(side, 0)[RECALL].mean for side in both]
    measured = f"{levels[0]:.4f}, advanced {levels[1]:.4f}: {format_difference(gap)}"
    what = f"no loss of {RECALL} with {model}: the interval does not lie below 0"
    return Claim("multitask", what, measured, gap.high >= 0, cost)


def _gain(log: Log, runs: Sequence[Run], predicted: np.ndarray) -> Interval:
    return difference([{"error": log.users_errors(predicted)}], [{"error": run["error"]} for run in runs], 0)["error"]
