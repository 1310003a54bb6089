"""What an evaluation leaves on disk, written in one go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from torch_geometric.data import HeteroData

from evaluation.baselines import popularity
from evaluation.evaluate import Evaluation, evaluate
from evaluation.lists import write_lists, write_ranked
from evaluation.parts import Part
from evaluation.ranking import Score
from evaluation.record import EvaluationRecord, write_per_user


def write_results(
    score: Score,
    graph: HeteroData,
    vocabularies: Path,
    folder: Path,
    *,
    part: Part,
    k: int,
    num_users: int | None = None,
    seed: int = 0,
    ks: Sequence[int] = (),
    list_length: int = 100,
) -> EvaluationRecord:
    """Evaluate a model beside popularity and write ``metrics.json``, ``per_user.parquet`` and ``lists.parquet``.

    The per-user table has the model's metrics under their names ("recall@10") and each baseline's behind its own
    ("popularity recall@10"), so that anything can be paired later.

    Args:
        score, graph, part, k, num_users, seed, ks: as in ``evaluation.evaluate.evaluate``.
        vocabularies: folder with users.parquet and songs.parquet.
        folder: where to write; it exists.
        list_length: songs a user in lists.parquet.
    """
    users, songs = vocabularies / "users.parquet", vocabularies / "songs.parquet"
    model = evaluate(score, graph, part, k, num_users, seed, ks, list_length=list_length)
    baselines = {"popularity": evaluate(popularity(graph), graph, part, k, num_users, seed, ks)}
    record = model.record(baselines)
    record.write(folder / "metrics.json")
    _write_per_user(folder / "per_user.parquet", users, model, baselines)
    if len(model.users) == model.eligible_users:
        write_ranked(model.users, model.ranked, users, songs, folder / "lists.parquet", list_length)
    else:
        write_lists(score, graph, users, songs, folder / "lists.parquet", list_length, part)
    return record


def _write_per_user(path: Path, users: Path, model: Evaluation, baselines: dict[str, Evaluation]) -> None:
    ids = pq.read_table(users, columns=["user_id"])["user_id"].combine_chunks().take(model.users.numpy())
    columns = {name: values.numpy() for name, values in model.per_user.items()}
    for baseline, evaluation in baselines.items():
        columns |= {f"{baseline} {name}": values.numpy() for name, values in evaluation.per_user.items()}
    write_per_user(path, ids, columns)
