"""CurriculumTrainer: whether easy pairs first are worth their time, for each measure of difficulty.

All trainings of a seed have the CPU seconds that AdvancedTrainer's took from start to end, and each keeps the weights
that were best on validation within them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch_geometric.data import HeteroData

from claims.claim import Claim
from claims.made_up import usual_graph, usual_run
from data.graph import node_counts
from evaluation.evaluation import evaluate
from evaluation.seed_comparison import Run, difference, format_difference
from tasks.run_config import RunConfig
from trainers.factory import create_trainer

K = 10
MEASURES = ("popularity", "support", "margin")
SCHEDULE: dict[str, Any] = {"difficulty_schedule": [0.5, 1.0], "epochs_per_stage": 4, "pacing": "root"}


def claims(seeds: Sequence[int], folder: Path) -> list[Claim]:
    """A row for each measure."""
    run, graph = usual_run(), usual_graph(folder)
    advanced, seconds = zip(*(trained("advanced", {}, run, graph, seed, folder, None) for seed in seeds), strict=True)
    return [claim(measure, run, graph, seeds, folder, advanced, seconds) for measure in MEASURES]


def claim(
    measure: str,
    run: RunConfig,
    graph: HeteroData,
    seeds: Sequence[int],
    folder: Path,
    advanced: Sequence[Run],
    budgets: Sequence[float],
) -> Claim:
    """Reached where recall is above AdvancedTrainer's with its whole interval."""
    keys = {**SCHEDULE, "difficulty_measure": measure}
    found = [
        trained("curriculum", keys, run, graph, seed, folder, budget)
        for seed, budget in zip(seeds, budgets, strict=True)
    ]
    gain = difference([own for own, _ in found], advanced, seed=0)["recall"]
    mean = np.mean([np.mean(own["recall"]) for own, _ in found])
    cost = sum(seconds for _, seconds in found) / sum(budgets)
    what = f"better than `advanced` in its time, by {measure}"
    return Claim("curriculum", what, f"recall@{K} {mean:.4f}: {format_difference(gain)}", gain.low > 0, cost)


def trained(
    name: str,
    keys: Mapping[str, Any],
    run: RunConfig,
    graph: HeteroData,
    seed: int,
    folder: Path,
    budget: float | None,
) -> tuple[Run, float]:
    """Each test user's recall after a training that ends with the epoch in which its CPU seconds are over."""
    training = {**run.training, **keys, "seed": seed, "resume": False}
    trainer = create_trainer(name, {**run.model, **node_counts(graph)}, training, folder / "training")
    trainer.tests_at_end = False
    started = time.process_time()
    if budget is not None:
        trainer.epoch_callback = lambda history: time.process_time() - started >= budget
    trainer.train(graph, run.num_epochs)
    seconds = time.process_time() - started
    recall = evaluate(trainer.score(graph), graph, "test", K).per_user[f"recall@{K}"]
    return {"recall": recall.numpy()}, seconds
