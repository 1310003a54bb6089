"""Evaluate a model beside its baselines, and write all files of the evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from evaluation.baselines.popular import popularity
from evaluation.curves import curves, write_curves
from evaluation.evaluation import Evaluation, evaluate
from evaluation.lists import read_lists, write_lists, write_ranked
from evaluation.metrics.beyond_accuracy import AGGREGATE_SAMPLES, Aggregate, SongFeatures, aggregates, list_metrics
from evaluation.metrics.exposure import exposure, write_exposure
from evaluation.parts import Part
from evaluation.ranking import Score
from evaluation.record import EvaluationRecord, read_user_ids, write_per_user
from evaluation.slices import slices, write_slices

POPULARITY = "popularity"


@dataclass(frozen=True)
class EvaluationProtocol:
    """Which lists are measured, and by which metrics."""

    part: Part
    """The part that has the relevant listens, as in ``evaluation.evaluation.evaluate``."""
    k: int
    """The list length of the watched metric."""
    num_users: int | None = None
    """How many users to sample; None means all."""
    seed: int = 0
    """Seed of the sample of users and of the resamples."""
    ks: Sequence[int] = ()
    """Further list lengths to measure."""
    list_length: int = 100
    """Songs per user in lists.parquet; at least the largest k."""
    conventions: Sequence[str] = ()
    """Further conventions to measure by, names in ``evaluation.metrics.accuracy.CONVENTIONS``."""


def write_results(
    score: Score,
    graph: HeteroData,
    vocabularies: Path,
    folder: Path,
    protocol: EvaluationProtocol,
    baselines: Mapping[str, Path] | None = None,
    song_vectors: Tensor | None = None,
) -> EvaluationRecord:
    """Evaluate a model beside its baselines and write the result files.

    They are ``metrics.json`` (``EvaluationRecord``); ``per_user.parquet`` with the metrics of the model ("recall@10")
    and of each baseline ("popularity recall@10"), so that any two can be paired; ``lists.parquet``, ``slices.json``,
    ``curves.json`` and ``exposure.json``.

    Args:
        score, graph: as in ``evaluation.evaluation.evaluate``.
        vocabularies: folder with users.parquet and songs.parquet.
        folder: an existing folder to write to.
        protocol: which lists are measured, and by which metrics.
        baselines: name to the folder that this function wrote for that baseline. Its lists are measured again, so that
            all numbers come from the same code. Popularity is added if it is missing. With an empty mapping the model
            is compared with nothing: this is how a baseline's own folder is written.
        song_vectors: (S, D) for the diversity by embedding, of the model and of its baselines.

    Raises:
        InputError: as ``evaluate``; or a baseline was measured on other users, another split or other list lengths.
    """
    k, part, length = protocol.k, protocol.part, max(protocol.list_length, protocol.k, *protocol.ks)
    features = SongFeatures.of(graph, song_vectors)
    lists = evaluate(score, graph, part, k, protocol.num_users, protocol.seed, protocol.ks, list_length=length)
    model = _with_list_metrics(lists, features)
    measured = _measure_baselines(baselines, model, vocabularies)
    others = {name: _with_list_metrics(baseline, features) for name, baseline in measured.items()}
    record = _with_aggregates(model.record(others, conventions=protocol.conventions), model, others)
    record.write(folder / "metrics.json")
    write_per_user(folder / "per_user.parquet", _user_ids(vocabularies, model), _columns(model, others))
    users_vocab, songs_vocab = vocabularies / "users.parquet", vocabularies / "songs.parquet"
    if len(model.users) == model.eligible_users:
        write_ranked(model.users, model.ranked, users_vocab, songs_vocab, folder / "lists.parquet", length)
    else:
        write_lists(score, graph, users_vocab, songs_vocab, folder / "lists.parquet", length, part)
    write_slices(folder / "slices.json", slices(model, others, score, features))
    write_curves(folder / "curves.json", curves(model))
    top, songs = model.ranked.items[:, :k].numpy(), model.relevant[1].numpy()
    write_exposure(folder / "exposure.json", exposure(top, songs, features.listeners.numpy(), k, part))
    return record


def _with_list_metrics(evaluation: Evaluation, features: SongFeatures) -> Evaluation:
    """Add the beyond-accuracy metrics of single lists (novelty, diversity, ...) at the watched k."""
    k = evaluation.k
    metrics = list_metrics(evaluation.ranked.items[:, :k], features)
    return evaluation.with_metrics({f"{name}@{k}": values for name, values in metrics.items()})


def _measure_baselines(
    folders: Mapping[str, Path] | None, model: Evaluation, vocabularies: Path
) -> dict[str, Evaluation]:
    if folders is not None and not folders:
        return {}
    found = {name: _read_baseline(name, folder, model, vocabularies) for name, folder in (folders or {}).items()}
    if POPULARITY in found:
        return found
    num_users = None if len(model.users) == model.eligible_users else len(model.users)
    score = popularity(model.graph)
    return {POPULARITY: evaluate(score, model.graph, model.part, model.k, num_users, model.seed, model.ks), **found}


def _read_baseline(name: str, folder: Path, model: Evaluation, vocabularies: Path) -> Evaluation:
    """Measure the lists in a baseline's folder, if they are of the same users and split as the model's."""
    record = EvaluationRecord.read(folder / "metrics.json")
    ids = _user_ids(vocabularies, model)
    same = all(getattr(record, field) == getattr(model, field) for field in ("split_digest", "part", "metric_version"))
    if not (same and set(model.ks) <= set(record.ks) and read_user_ids(folder / "per_user.parquet").equals(ids)):
        raise InputError(
            f"The baseline '{name}' in {folder} was measured on another split, other users or other list lengths than "
            "the model; evaluate both on one graph with the same k, ks, num_users and seed."
        )
    return model.with_lists(read_lists(folder / "lists.parquet", ids, vocabularies / "songs.parquet", model.ks[-1]))


def _with_aggregates(record: EvaluationRecord, model: Evaluation, others: Mapping[str, Evaluation]) -> EvaluationRecord:
    """Add coverage and Gini: they are not means over users and have intervals of another kind."""
    own, baselines = _aggregates(model), {name: _aggregates(other) for name, other in others.items()}
    gaps = {name: {metric: own[metric] - found[metric] for metric in own} for name, found in baselines.items()}
    update = {
        "metrics": {**record.metrics, **_intervals(own)},
        "baselines": {name: {**found, **_intervals(baselines[name])} for name, found in record.baselines.items()},
        "differences": {name: {**found, **_intervals(gaps[name])} for name, found in record.differences.items()},
        "aggregate_samples": AGGREGATE_SAMPLES,
    }
    return record.model_copy(update=update)


def _aggregates(evaluation: Evaluation) -> dict[str, Aggregate]:
    k = evaluation.k
    found = aggregates(evaluation.ranked.items[:, :k], evaluation.num_songs, evaluation.seed)
    return {f"{evaluation.prefix}{name}@{k}": value for name, value in found.items()}


def _intervals(found: Mapping[str, Aggregate]) -> dict[str, object]:
    return {name: value.interval() for name, value in found.items()}


def _columns(model: Evaluation, others: Mapping[str, Evaluation]) -> dict[str, np.ndarray]:
    """Return the per-user metrics of the model, and of each baseline with its name in front."""
    columns = {name: values.numpy() for name, values in model.per_user.items()}
    for baseline, evaluation in others.items():
        columns |= {f"{baseline} {name}": values.numpy() for name, values in evaluation.per_user.items()}
    return columns


def _user_ids(vocabularies: Path, model: Evaluation) -> pa.Array:
    ids = pq.read_table(vocabularies / "users.parquet", columns=["user_id"])["user_id"]
    return ids.combine_chunks().cast(pa.string()).take(model.users.numpy())
