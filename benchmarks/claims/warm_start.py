"""Warm start: epochs saved to the quality that a training from random weights reaches.

An earlier model was trained on the log without its last fortnight. Tonight's training starts from it, or from random
weights, on the same graph and with the same config. Quality is recall on the validation listens of all users. Single
epochs are noisy, so curves are averaged over the seeds; the bar is 99 % of where the one from random weights ends up,
the median of its second half.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from torch_geometric.data import HeteroData

from claims.claim import Claim
from claims.made_up import usual_run, without_last_days
from data.graph import NODE_TYPES, node_counts
from data.split import SplitConfig
from registry.bundle.seen_tables import seen_table
from tasks.run_config import RunConfig
from trainers.base import BaseTrainer
from trainers.factory import create_trainer

Curves = npt.NDArray[np.float64]

DAYS = 14
SHARE = 0.99
METRIC = "recall@10"
EPOCHS = 25
RESAMPLES = 2000
SPLIT = SplitConfig(strategy="temporal", val_ratio=0.15, test_ratio=0.05)
MODELS: Mapping[str, dict[str, Any]] = {
    "mf": {"architecture": "mf"},
    "lightgcn": {"architecture": "lightgcn"},
    "gat, vectors alone": {"local": False},
    "gat": {},
}


def claims(seeds: Sequence[int], folder: Path) -> list[Claim]:
    """A row a model."""
    earlier, tonight = (without_last_days(days, folder / str(days)).split(SPLIT) for days in (DAYS, 0))
    return [claim(name, earlier, tonight, seeds, folder / name) for name in MODELS]


def claim(name: str, earlier: HeteroData, tonight: HeteroData, seeds: Sequence[int], folder: Path) -> Claim:
    """Reached where epochs are saved in (nearly) every resample of the seeds."""
    run = usual_run().model_copy(update={"num_epochs": EPOCHS})
    run = run.model_copy(update={"model": {**run.model, **MODELS[name]}})
    found = [both_curves(run, earlier, tonight, seed, folder / str(seed)) for seed in seeds]
    cold, warm = (np.array(curves) for curves in zip(*found, strict=True))
    from_random, from_earlier = epochs_to_bar(cold, warm)
    low, high = interval(cold, warm)
    told = (
        f"{from_earlier} epochs in place of {from_random}: {from_random - from_earlier} saved [{low:.0f}, {high:.0f}]; "
        f"recall after the first epoch {warm[:, 0].mean():.4f} in place of {cold[:, 0].mean():.4f}"
    )
    what = f"fewer epochs to {SHARE:.0%} of the quality from random weights, from a model {DAYS} days older ({name})"
    return Claim("advanced, warm start", what, told, low > 0, from_earlier / from_random)


def interval(cold: Curves, warm: Curves) -> tuple[float, float]:
    """Ends of the 95 % bootstrap interval over the seeds of the epochs that are saved."""
    draws = np.random.default_rng(0).integers(len(cold), size=(RESAMPLES, len(cold)))
    saved = [np.subtract(*epochs_to_bar(cold[drawn], warm[drawn])) for drawn in draws]
    low, high = np.percentile(saved, [2.5, 97.5])
    return float(low), float(high)


def epochs_to_bar(cold: Curves, warm: Curves) -> tuple[int, int]:
    """Epochs until the mean of some seeds' curves (seeds, epochs) reaches the bar: from random weights and warm."""
    mean = cold.mean(0)
    bar = SHARE * float(np.median(mean[len(mean) // 2 :]))
    return first_above(mean, bar), first_above(warm.mean(0), bar)


def first_above(values: Curves, bar: float) -> int:
    """The first epoch, counted from 1, that reaches the bar; one more than there are where none does."""
    return next((epoch for epoch, value in enumerate(values, start=1) if value >= bar), len(values) + 1)


def both_curves(
    run: RunConfig, earlier: HeteroData, tonight: HeteroData, seed: int, folder: Path
) -> tuple[list[float], list[float]]:
    """The watched metric of each epoch: from random weights, and from the earlier model."""
    before = build(run, earlier, seed, folder / "earlier")
    before.train(earlier, run.num_epochs)
    bundle = as_bundle(before, earlier, folder / "bundle")
    cold = curve(build(run, tonight, seed, folder / "cold"), run, tonight)
    warm = curve(build(run, tonight, seed, folder / "warm", warm_start=str(bundle)), run, tonight)
    return cold, warm


def curve(trainer: BaseTrainer, run: RunConfig, graph: HeteroData) -> list[float]:
    """The watched metric of each epoch."""
    return [record[METRIC] for record in trainer.train(graph, run.num_epochs)["history"]]


def build(run: RunConfig, graph: HeteroData, seed: int, folder: Path, **more: object) -> BaseTrainer:
    """A trainer that looks at all users and does not stop early."""
    training = {**run.training, "seed": seed, "num_eval_users": None, "patience": run.num_epochs, **more}
    trainer = create_trainer("advanced", {**run.model, **node_counts(graph)}, training, folder)
    trainer.tests_at_end = False
    return trainer


def as_bundle(trainer: BaseTrainer, graph: HeteroData, folder: Path) -> Path:
    """What a warm start reads of a bundle."""
    trainer.save_model(folder)
    for kind in NODE_TYPES:
        pq.write_table(pa.table({"id_hash": graph[kind].id_hash.numpy()}), folder / f"{kind}s.parquet")
    pq.write_table(seen_table(graph), folder / "seen.parquet")
    facts = {"in_sample": False, "refit": False, "seen_splits": [{}]}
    (folder / "manifest.json").write_text(json.dumps({"facts": facts}))
    return folder
