"""CurriculumTrainer: is it better to start with easy pairs, for each measure of difficulty?

All trainings of a seed get the CPU seconds that AdvancedTrainer took from start to end. Each keeps the weights that
were best on validation within this time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch_geometric.data import HeteroData

from claims.claim import Claim
from claims.synthetic_log import default_graph, default_run
from claims.training import TrainedModel, create, train
from evaluation.seed_comparison import Run, difference, format_difference
from tasks.run_config import RunConfig

K = 10
MEASURES = ("popularity", "support", "margin")
SCHEDULE: dict[str, Any] = {"difficulty_schedule": [0.5, 1.0], "epochs_per_stage": 4, "pacing": "root"}


def claims(seeds: Sequence[int], folder: Path) -> list[Claim]:
    """Return a row for each measure of difficulty."""
    run, graph, home = default_run(), default_graph(folder), folder / "training"
    advanced, budgets = [], []
    for seed in seeds:
        model = train(create("advanced", run, graph, home, seed=seed), graph, run.num_epochs)
        advanced.append(recall(model))
        budgets.append(model.cpu_seconds)
    return [claim(measure, run, graph, seeds, home, advanced, budgets) for measure in MEASURES]


def claim(
    measure: str,
    run: RunConfig,
    graph: HeteroData,
    seeds: Sequence[int],
    folder: Path,
    advanced: Sequence[Run],
    budgets: Sequence[float],
) -> Claim:
    """Measure one row. It is reached if the whole interval of recall minus that of AdvancedTrainer is above 0."""
    recalls, seconds = [], []
    for seed, budget in zip(seeds, budgets, strict=True):
        trainer = create("curriculum", run, graph, folder, **SCHEDULE, difficulty_measure=measure, seed=seed)
        model = train(trainer, graph, run.num_epochs, budget)
        recalls.append(recall(model))
        seconds.append(model.cpu_seconds)
    gain = difference(recalls, advanced, seed=0)["recall"]
    mean = np.mean([np.mean(of_seed["recall"]) for of_seed in recalls])
    what = f"better than `advanced` in its time, by {measure}"
    measured = f"recall@{K} {mean:.4f}: {format_difference(gain)}"
    return Claim("curriculum", what, measured, gain.low > 0, sum(seconds) / sum(budgets))


def recall(model: TrainedModel) -> Run:
    """Measure the recall of each test user."""
    return {"recall": model.per_user(f"recall@{K}", K)}
