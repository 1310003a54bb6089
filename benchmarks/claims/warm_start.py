"""Warm start: epochs saved to the quality that a training from random weights reaches.

Last night's model was trained on the log without its last days. Tonight's training starts from it, or from random
weights, on the same graph. Quality is recall on the validation listens of all users; the bar is 99 % of the best that
the training from random weights reaches.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch_geometric.data import HeteroData

from claims.claim import Claim
from claims.made_up import usual_run
from claims.online import nights
from data.graph import NODE_TYPES, node_counts
from registry.seen import seen_table
from tasks.config import RunConfig
from trainers.base import BaseTrainer
from trainers.factory import create_trainer

SHARE = 0.99
METRIC = "recall@10"


def claims(seeds: Sequence[int], folder: Path) -> list[Claim]:
    """Epochs until the bar, from random weights and from last night's."""
    run, (before, *_, tonight) = usual_run(), nights(folder / "nights")
    pairs = np.array([epochs_of(run, before, tonight, seed, folder / str(seed)) for seed in seeds])
    cold, warm = pairs.T
    saved = cold - warm
    told = f"{warm.mean():.1f} epochs in place of {cold.mean():.1f}: {spread(saved)} saved"
    what = f"fewer epochs to {SHARE:.0%} of the quality from random weights, from a model of 14 nights before"
    return [Claim("advanced, warm start", what, told, bool((saved > 0).all()), float(warm.sum() / cold.sum()))]


def spread(saved: np.ndarray) -> str:
    """Mean over seeds, and the least and the most."""
    return f"{saved.mean():.1f} ({saved.min():.0f} to {saved.max():.0f} over {len(saved)} seeds)"


def epochs_of(run: RunConfig, before: HeteroData, tonight: HeteroData, seed: int, folder: Path) -> tuple[int, int]:
    """Epochs until the bar: from random weights, and from the earlier model."""
    earlier = build(run, before, seed, folder / "earlier")
    earlier.train(before, run.num_epochs)
    bundle = as_bundle(earlier, before, folder / "bundle")
    cold = curve(build(run, tonight, seed, folder / "cold"), run, tonight)
    warm = curve(build(run, tonight, seed, folder / "warm", warm_start=str(bundle)), run, tonight)
    bar = SHARE * max(cold)
    return first_above(cold, bar), first_above(warm, bar)


def first_above(values: Sequence[float], bar: float) -> int:
    """The first epoch, counted from 1, that reaches the bar; one more than there are where none does."""
    return next((epoch for epoch, value in enumerate(values, start=1) if value >= bar), len(values) + 1)


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
