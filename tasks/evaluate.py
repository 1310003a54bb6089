"""Stage 5: score the model on the held-out pairs, beside the popularity baseline, and keep every user's list."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.config import RunConfig
from tasks.ref import Ref
from tasks.stage import Stage
from tasks.train import graph_file, trained_on_everything

DEFAULT_K = 10
"""The trainer guide's ``eval_k``."""


def _evaluate(
    folder: Path, config: Mapping[str, Any], model: Path, training_graph: Path, graph: Path
) -> Mapping[str, Any]:
    from data.graph import load_graph
    from evaluation.ranking import dot_product
    from evaluation.results import write_results
    from trainers.saved import load_embeddings

    in_sample = trained_on_everything(model)
    scored_graph = load_graph(graph_file(in_sample, training_graph, graph))
    score = dot_product(*load_embeddings(model))
    record = write_results(score, scored_graph, graph, folder, part="train" if in_sample else "test", **config)
    return {"users": record.num_users, **{name: interval.mean for name, interval in record.metrics.items()}}


EVALUATE = Stage("evaluate", 1, _evaluate, code=("evaluation.results", "trainers.saved"))


def evaluate(run: RunConfig, model: Ref, training_graph: Ref, graph: Ref) -> Ref:
    """Score the chosen model; the folder holds ``metrics.json``, ``per_user.parquet`` and ``lists.parquet``."""
    chosen = run.evaluation
    config = {
        "k": run.training.get("eval_k", DEFAULT_K),
        "ks": chosen.more_ks,
        "num_users": chosen.num_eval_users,
        "seed": chosen.seed,
    }
    return EVALUATE(run, config, model=model, training_graph=training_graph, graph=graph)
