"""OnlineTrainer: compare fourteen nights of updates with a full training each night, and with a model without updates.

Every night has the log up to that night, split by time, so that its last days are ranked. All models of a night are
measured on the same listens. A user's recall is the mean over the nights on which the user has relevant listens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from claims.claim import Claim
from claims.synthetic_log import default_run, graph_without_last_days
from claims.training import cpu_seconds_of, create
from data.split import SplitConfig
from data.vocabulary import rows_of
from evaluation.evaluation import Evaluation, evaluate
from evaluation.ranking import Score
from evaluation.seed_comparison import Run, across_seeds, difference, format_difference
from tasks.run_config import RunConfig
from trainers.online import OnlineTrainer

NIGHTS = 14
MEASURED = range(2, NIGHTS + 1, 2)
"""Nights with a full training to compare with; every other night is enough."""
K = 10
UPDATE_EPOCHS = 10
SHARE, MAX_TIME = 0.98, 0.20
SPLIT = SplitConfig(strategy="temporal", val_ratio=0.05, test_ratio=0.05)


@dataclass
class Strategy:
    """The results of one strategy over the nights: recalls by the user's id hash, and CPU seconds per training."""

    recalls: dict[int, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def add(self, graph: HeteroData, measured: Evaluation) -> None:
        """Add each user's recall of a night."""
        users = graph["user"].id_hash[measured.users].tolist()
        for user, recall in zip(users, measured.per_user[f"recall@{K}"].tolist(), strict=True):
            self.recalls.setdefault(user, []).append(recall)

    def run(self) -> Run:
        """Return each user's mean over the nights, in the order of the id hashes."""
        return {"recall": np.array([np.mean(self.recalls[user]) for user in sorted(self.recalls)])}


def claims(seeds: Sequence[int], folder: Path) -> list[Claim]:
    """Compare the recall with full trainings and with no updates; the cost is that of an update."""
    run = default_run()
    graphs = nightly_graphs(folder / "nights")
    strategies = [run_nights(run, graphs, seed, folder / str(seed)) for seed in seeds]
    full, online, stale = ([of_seed[number] for of_seed in strategies] for number in range(3))
    cost = mean_seconds(online) / mean_seconds(full)
    return [compare_with_full(full, online, cost), compare_with_stale(online, stale, cost)]


def mean_seconds(strategies: Sequence[Strategy]) -> float:
    """Return the mean CPU seconds of a training."""
    return float(np.mean([seconds for strategy in strategies for seconds in strategy.seconds]))


def compare_with_full(full: Sequence[Strategy], online: Sequence[Strategy], cost: float) -> Claim:
    """Compare with a full training. Reached: the whole interval is above 98 % of its recall, in a fifth of its time."""
    bar = [{"recall": SHARE * np.asarray(strategy.run()["recall"])} for strategy in full]
    above = difference([strategy.run() for strategy in online], bar, seed=0)["recall"]
    ours, theirs = (
        across_seeds([strategy.run() for strategy in strategies], seed=0)["recall"] for strategies in (online, full)
    )
    share = f"{ours.mean / theirs.mean:.1%}; above the bar by {format_difference(above)}"
    measured = f"recall@{K} {ours.mean:.4f}, full {theirs.mean:.4f}: {share}"
    what = f"{NIGHTS} nights: {SHARE:.0%} of a full training's recall in {MAX_TIME:.0%} of its time"
    return Claim("online", what, measured, above.low > 0 and cost <= MAX_TIME, cost)


def compare_with_stale(online: Sequence[Strategy], stale: Sequence[Strategy], cost: float) -> Claim:
    """Compare with a model without updates. Reached: the whole interval of the difference is above 0."""
    gain = difference([strategy.run() for strategy in online], [strategy.run() for strategy in stale], seed=0)["recall"]
    measured = f"recall@{K} {format_difference(gain)}"
    return Claim("online", "better than the model left as it was", measured, gain.low > 0, cost)


def nightly_graphs(folder: Path) -> list[HeteroData]:
    """Make the training graph of the night before the first update, and of each night after it."""
    return [graph_without_last_days(NIGHTS - night, folder / str(night)).split(SPLIT) for night in range(NIGHTS + 1)]


def run_nights(
    run: RunConfig, graphs: Sequence[HeteroData], seed: int, folder: Path
) -> tuple[Strategy, Strategy, Strategy]:
    """Measure full trainings, updates of the first night's model, and this model without updates."""
    full, updated, stale = Strategy(), Strategy(), Strategy()
    online = create("online", run, graphs[0], folder / "online", seed=seed, max_updates=NIGHTS)
    assert isinstance(online, OnlineTrainer)
    online.train(graphs[0], run.num_epochs)
    first_score = online.score(graphs[0])
    for night, graph in enumerate(graphs[1:], start=1):
        updated.seconds.append(cpu_seconds_of(online.update, graph, num_epochs=UPDATE_EPOCHS))
        if night in MEASURED:
            trainer = create("advanced", run, graph, folder / f"full-{night}", seed=seed)
            full.seconds.append(cpu_seconds_of(trainer.train, graph, num_epochs=run.num_epochs))
            scores = trainer.score(graph), online.score(graph), StaleScores(first_score, graphs[0], graph)
            for strategy, score in zip((full, updated, stale), scores, strict=True):
                strategy.add(graph, evaluate(score, graph, "test", K))
    return full, updated, stale


class StaleScores:
    """Scores of an earlier night's model for the nodes of tonight: new songs come last, new users get zeros."""

    def __init__(self, score: Score, before: HeteroData, now: HeteroData) -> None:
        self.score = score
        hashes = ((before[kind].id_hash.numpy(), now[kind].id_hash.numpy()) for kind in ("user", "song"))
        self.user, self.song = (torch.from_numpy(rows_of(*both)) for both in hashes)

    def __call__(self, users: Tensor) -> Tensor:
        """Return the scores (B, S) float32."""
        known, songs = self.user[users] >= 0, self.song >= 0
        scores = torch.zeros(len(users), len(self.song))
        if known.any():
            earlier = self.score(self.user[users][known])
            rows = torch.full((len(earlier), len(self.song)), float(earlier.min()) - 1)
            rows[:, songs] = earlier[:, self.song[songs]]
            scores[known] = rows
        return scores
