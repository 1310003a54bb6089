"""Warm start: how many epochs does it save to reach the quality of a training from random weights?

An earlier model was trained on the log without its last fortnight. Tonight's training starts from this model or from
random weights, on the same graph and with the same config. Quality is recall on the validation listens of all users.
Single epochs are noisy, so curves are averaged over the seeds. The bar is 99 % of the final quality from random
weights, which is the median of the second half of its curve.
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
from claims.synthetic_log import default_run, graph_without_last_days
from claims.training import create
from data.graph import NODE_TYPES
from data.split import SplitConfig
from registry.bundle.seen_tables import seen_table
from tasks.run_config import RunConfig
from trainers.base import BaseTrainer

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
    """Return a row for each model."""
    earlier, tonight = (graph_without_last_days(days, folder / str(days)).split(SPLIT) for days in (DAYS, 0))
    return [claim(name, earlier, tonight, seeds, folder / name) for name in MODELS]


def claim(name: str, earlier: HeteroData, tonight: HeteroData, seeds: Sequence[int], folder: Path) -> Claim:
    """Measure one row. It is reached if the whole interval of the saved epochs is above 0."""
    run = default_run().model_copy(update={"num_epochs": EPOCHS})
    run = run.model_copy(update={"model": {**run.model, **MODELS[name]}})
    curves = [cold_and_warm_curve(run, earlier, tonight, seed, folder / str(seed)) for seed in seeds]
    cold, warm = (np.array(of_seeds) for of_seeds in zip(*curves, strict=True))
    from_random, from_earlier = epochs_to_bar(cold, warm)
    low, high = interval(cold, warm)
    measured = (
        f"{from_earlier} epochs in place of {from_random}: {from_random - from_earlier} saved [{low:.0f}, {high:.0f}]; "
        f"recall after the first epoch {warm[:, 0].mean():.4f} in place of {cold[:, 0].mean():.4f}"
    )
    what = f"fewer epochs to {SHARE:.0%} of the quality from random weights, from a model {DAYS} days older ({name})"
    return Claim("advanced, warm start", what, measured, low > 0, from_earlier / from_random)


def interval(cold: Curves, warm: Curves) -> tuple[float, float]:
    """Return both ends of the 95 % bootstrap interval of the saved epochs, over the seeds."""
    draws = np.random.default_rng(0).integers(len(cold), size=(RESAMPLES, len(cold)))
    saved = [np.subtract(*epochs_to_bar(cold[drawn], warm[drawn])) for drawn in draws]
    low, high = np.percentile(saved, [2.5, 97.5])
    return float(low), float(high)


def epochs_to_bar(cold: Curves, warm: Curves) -> tuple[int, int]:
    """Count the epochs until the mean of the curves (seeds, epochs) reaches the bar: from random weights, and warm."""
    mean = cold.mean(0)
    bar = SHARE * float(np.median(mean[len(mean) // 2 :]))
    return first_above(mean, bar), first_above(warm.mean(0), bar)


def first_above(values: Curves, bar: float) -> int:
    """Return the first epoch, counted from 1, that reaches the bar; one more than their number if none does."""
    return next((epoch for epoch, value in enumerate(values, start=1) if value >= bar), len(values) + 1)


def cold_and_warm_curve(
    run: RunConfig, earlier: HeteroData, tonight: HeteroData, seed: int, folder: Path
) -> tuple[list[float], list[float]]:
    """Train from random weights and from the earlier model; return the validation recall of each epoch."""
    settings = {"seed": seed, "num_eval_users": None, "patience": run.num_epochs}  # all users, no early stop
    before = create("advanced", run, earlier, folder / "earlier", **settings)
    before.train(earlier, run.num_epochs)
    bundle = write_bundle(before, earlier, folder / "bundle")
    cold = create("advanced", run, tonight, folder / "cold", **settings).train(tonight, run.num_epochs)
    start = {"warm_start": str(bundle)}
    warm = create("advanced", run, tonight, folder / "warm", **settings, **start).train(tonight, run.num_epochs)
    return [record[METRIC] for record in cold["history"]], [record[METRIC] for record in warm["history"]]


def write_bundle(trainer: BaseTrainer, graph: HeteroData, folder: Path) -> Path:
    """Write the files of a bundle that a warm start reads."""
    trainer.save_model(folder)
    for kind in NODE_TYPES:
        pq.write_table(pa.table({"id_hash": graph[kind].id_hash.numpy()}), folder / f"{kind}s.parquet")
    pq.write_table(seen_table(graph), folder / "seen.parquet")
    facts = {"in_sample": False, "refit": False, "seen_splits": [{}]}
    (folder / "manifest.json").write_text(json.dumps({"facts": facts}))
    return folder
