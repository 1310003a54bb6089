"""Stage 5: score the model on the held-out pairs, beside the popularity baseline, and keep every user's list."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.config import RunConfig
from tasks.ref import Ref
from tasks.stage import Stage

DEFAULT_K = 10
"""The trainer guide's ``eval_k``."""


def _evaluate(
    folder: Path, config: Mapping[str, Any], model: Path, training_graph: Path, graph: Path
) -> Mapping[str, Any]:
    import pyarrow.parquet as pq

    from data.graph import load_graph
    from evaluation.baselines import popularity
    from evaluation.evaluate import evaluate as evaluate_scores
    from evaluation.lists import write_lists
    from evaluation.parts import Part
    from evaluation.record import write_per_user
    from trainers.factory import trains_on_everything
    from trainers.saved import load_config, load_embeddings

    in_sample = trains_on_everything(load_config(model)["trainer"])
    scored_graph = load_graph(graph / "graph.pt" if in_sample else training_graph / "training_graph.pt")
    part: Part = "train" if in_sample else "test"
    score = load_embeddings(model).score
    scored = evaluate_scores(score, scored_graph, part, **config)
    popular = evaluate_scores(popularity(scored_graph), scored_graph, part, **config)
    record = scored.record({"popularity": popular})
    record.write(folder / "metrics.json")
    user_ids = pq.read_table(graph / "users.parquet")["user_id"].take(scored.users.numpy())
    columns = {**scored.per_user, **{f"popularity {name}": values for name, values in popular.per_user.items()}}
    write_per_user(folder / "per_user.parquet", user_ids, {name: values.numpy() for name, values in columns.items()})
    vocabularies = graph / "users.parquet", graph / "songs.parquet"
    write_lists(score, scored_graph, *vocabularies, folder / "lists.parquet", part=part)
    return {"users": record.num_users, **{name: interval.mean for name, interval in record.metrics.items()}}


EVALUATE = Stage(
    "evaluate",
    1,
    _evaluate,
    code=("evaluation.evaluate", "evaluation.baselines", "evaluation.lists", "trainers.saved"),
)


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
