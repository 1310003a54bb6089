"""OnlineTrainer: fourteen nights of updates against a full training each night, and against the model left as it was.

Every night has the log up to it, split by time, so that the last days are ranked. The trainings of one night are
measured on the same listens; a user's recall is the mean over the nights on which the user has some.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from claims.claim import Claim
from claims.made_up import usual_run, without_last_days
from data.graph import node_counts
from data.split import SplitConfig
from data.vocabulary import rows_of
from evaluation.evaluation import Evaluation, evaluate
from evaluation.ranking import Score
from evaluation.seed_comparison import Run, across_seeds, difference, format_difference
from tasks.run_config import RunConfig
from trainers.advanced import AdvancedTrainer
from trainers.base import BaseTrainer
from trainers.online import OnlineTrainer

NIGHTS = 14
MEASURED = range(2, NIGHTS + 1, 2)
"""A full training every other night is enough to compare with."""
K = 10
UPDATE_EPOCHS = 10
SHARE, MOST_TIME = 0.98, 0.20
SPLIT = SplitConfig(strategy="temporal", val_ratio=0.05, test_ratio=0.05)


@dataclass
class Side:
    """One way through the nights: each user's recalls, by id hash, and the CPU seconds of its trainings."""

    recalls: dict[int, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def add(self, graph: HeteroData, measured: Evaluation) -> None:
        """A night's recall of each user."""
        users = graph["user"].id_hash[measured.users].tolist()
        for user, recall in zip(users, measured.per_user[f"recall@{K}"].tolist(), strict=True):
            self.recalls.setdefault(user, []).append(recall)

    def run(self) -> Run:
        """Each user's mean over the nights, in the order of the ids."""
        return {"recall": np.array([np.mean(self.recalls[user]) for user in sorted(self.recalls)])}


def claims(seeds: Sequence[int], folder: Path) -> list[Claim]:
    """Recall against full trainings and against no training at all; the time is that of an update."""
    run = usual_run()
    graphs = nights(folder / "nights")
    sides = [through_the_nights(run, graphs, seed, folder / str(seed)) for seed in seeds]
    full, online, left = ([side[place] for side in sides] for place in range(3))
    cost = mean_seconds(online) / mean_seconds(full)
    return [against_full(full, online, cost), against_left(online, left, cost)]


def mean_seconds(sides: Sequence[Side]) -> float:
    """CPU seconds of a training, on average."""
    return float(np.mean([seconds for side in sides for seconds in side.seconds]))


def against_full(full: Sequence[Side], online: Sequence[Side], cost: float) -> Claim:
    """Reached where recall is above 98 % of a full training's, with its whole interval, in a fifth of the time."""
    bar = [{"recall": SHARE * np.asarray(side.run()["recall"])} for side in full]
    above = difference([side.run() for side in online], bar, seed=0)["recall"]
    ours, theirs = (across_seeds([side.run() for side in sides], seed=0)["recall"] for sides in (online, full))
    share = f"{ours.mean / theirs.mean:.1%}; above the bar by {format_difference(above)}"
    told = f"recall@{K} {ours.mean:.4f}, full {theirs.mean:.4f}: {share}"
    what = f"{NIGHTS} nights: {SHARE:.0%} of a full training's recall in {MOST_TIME:.0%} of its time"
    return Claim("online", what, told, above.low > 0 and cost <= MOST_TIME, cost)


def against_left(online: Sequence[Side], left: Sequence[Side], cost: float) -> Claim:
    """Reached where the model that was left as it was is worse, with the whole interval."""
    gain = difference([side.run() for side in online], [side.run() for side in left], seed=0)["recall"]
    return Claim(
        "online", "better than the model left as it was", f"recall@{K} {format_difference(gain)}", gain.low > 0, cost
    )


def nights(folder: Path) -> list[HeteroData]:
    """The training graph of the night before the first update, and of each of the nights that follow."""
    return [without_last_days(NIGHTS - number, folder / str(number)).split(SPLIT) for number in range(NIGHTS + 1)]


def through_the_nights(
    run: RunConfig, graphs: Sequence[HeteroData], seed: int, folder: Path
) -> tuple[Side, Side, Side]:
    """Full trainings, updates of the first night's model, and that model left as it was."""
    full, updated, untouched = Side(), Side(), Side()
    online = build(OnlineTrainer, run, graphs[0], seed, folder / "online", max_updates=NIGHTS)
    online.train(graphs[0], run.num_epochs)
    left = online.score(graphs[0])
    for number, graph in enumerate(graphs[1:], start=1):
        updated.seconds.append(timed(online.update, graph, UPDATE_EPOCHS))
        if number in MEASURED:
            anew = build(AdvancedTrainer, run, graph, seed, folder / f"full-{number}")
            full.seconds.append(timed(anew.train, graph, run.num_epochs))
            scores = anew.score(graph), online.score(graph), LeftAsItWas(left, graphs[0], graph)
            for side, score in zip((full, updated, untouched), scores, strict=True):
                side.add(graph, evaluate(score, graph, "test", K))
    return full, updated, untouched


def build(
    kind: type[BaseTrainer], run: RunConfig, graph: HeteroData, seed: int, folder: Path, **more: object
) -> BaseTrainer:
    """A trainer with the settings of ``make train``."""
    trainer = kind({**run.model, **node_counts(graph)}, {**run.training, "seed": seed, **more}, folder)
    trainer.tests_at_end = False
    return trainer


def timed(train: Callable[[HeteroData, int], object], graph: HeteroData, num_epochs: int) -> float:
    """CPU seconds."""
    started = time.process_time()
    train(graph, num_epochs=num_epochs)
    return time.process_time() - started


class LeftAsItWas:
    """Scores of an earlier night's model for the nodes of tonight: unknown songs come last, unknown users get zeros."""

    def __init__(self, score: Score, before: HeteroData, now: HeteroData) -> None:
        self.score = score
        ids = ((before[kind].id_hash.numpy(), now[kind].id_hash.numpy()) for kind in ("user", "song"))
        self.user, self.song = (torch.from_numpy(rows_of(*both)) for both in ids)

    def __call__(self, users: Tensor) -> Tensor:
        """(B, S) float32."""
        known, songs = self.user[users] >= 0, self.song >= 0
        scores = torch.zeros(len(users), len(self.song))
        if known.any():
            told = self.score(self.user[users][known])
            rows = torch.full((len(told), len(self.song)), float(told.min()) - 1)
            rows[:, songs] = told[:, self.song[songs]]
            scores[known] = rows
        return scores
