"""What an evaluation leaves on disk, written in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from evaluation.baselines.popular import popularity
from evaluation.evaluation import Evaluation, evaluate
from evaluation.lists import read_lists, write_lists, write_ranked
from evaluation.metrics.beyond_accuracy import AGGREGATE_SAMPLES, Aggregate, SongFeatures, aggregates, list_metrics
from evaluation.metrics.curves import curves, write_curves
from evaluation.metrics.exposure import exposure, write_exposure
from evaluation.metrics.slices import slices, write_slices
from evaluation.parts import Part
from evaluation.ranking import Score
from evaluation.record import EvaluationRecord, read_user_ids, write_per_user

POPULARITY = "popularity"


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
    baselines: Mapping[str, Path] | None = None,
    song_vectors: Tensor | None = None,
    conventions: Sequence[str] = (),
) -> EvaluationRecord:
    """Evaluate a model beside its baselines and write what anybody looks at later.

    ``metrics.json`` (``EvaluationRecord``), ``per_user.parquet`` (the model's metrics under their names, "recall@10",
    and each baseline's behind its own, "popularity recall@10", so that anything can be paired), ``lists.parquet``,
    ``slices.json``, ``curves.json`` and ``exposure.json``.

    Args:
        score, graph, part, k, num_users, seed, ks: as in ``evaluation.evaluation.evaluate``.
        vocabularies: folder with users.parquet and songs.parquet.
        folder: where to write; it exists.
        list_length: songs a user in lists.parquet; as many as the longest k at least.
        baselines: name to the folder that this function wrote for that baseline; its lists are measured again, so that
            every number beside the model's comes from the same code. Popularity is added where it is not among them.
            An empty mapping puts nothing beside the model: so a baseline's own folder is written.
        song_vectors: (S, D) for the diversity by embedding, of the model and of its baselines.
        conventions: names in ``evaluation.metrics.accuracy.CONVENTIONS`` by which to measure too.

    Raises:
        InputError: as ``evaluate``; and a baseline's folder stands on other users, another split or other ks.
    """
    length = max(list_length, k, *ks)
    features = SongFeatures.of(graph, song_vectors)
    model = _whole(evaluate(score, graph, part, k, num_users, seed, ks, list_length=length), features)
    others = {name: _whole(one, features) for name, one in _baselines(baselines, model, vocabularies).items()}
    record = _with_aggregates(model.record(others, conventions=conventions), model, others)
    record.write(folder / "metrics.json")
    _write_per_user(folder / "per_user.parquet", vocabularies, model, others)
    _write_lists(folder / "lists.parquet", vocabularies, model, score, length)
    write_slices(folder / "slices.json", slices(model, others, score, features))
    write_curves(folder / "curves.json", curves(model))
    top, songs = model.ranked.items[:, :k].numpy(), model.relevant[1].numpy()
    write_exposure(folder / "exposure.json", exposure(top, songs, features.listeners.numpy(), k, part))
    return record


def _whole(evaluation: Evaluation, features: SongFeatures) -> Evaluation:
    """With what lists are like beside how right they are, at the k that matters."""
    k = evaluation.k
    found = list_metrics(evaluation.ranked.items[:, :k], features)
    return evaluation.with_columns({f"{name}@{k}": values for name, values in found.items()})


def _baselines(given: Mapping[str, Path] | None, model: Evaluation, vocabularies: Path) -> dict[str, Evaluation]:
    if given is not None and not given:
        return {}
    found = {name: _read_baseline(name, folder, model, vocabularies) for name, folder in (given or {}).items()}
    if POPULARITY in found:
        return found
    return {POPULARITY: _popularity(model), **found}


def _popularity(model: Evaluation) -> Evaluation:
    graph, users = model.graph, None if len(model.users) == model.eligible_users else len(model.users)
    return evaluate(popularity(graph), graph, model.part, model.k, users, model.seed, model.ks)


def _read_baseline(name: str, folder: Path, model: Evaluation, vocabularies: Path) -> Evaluation:
    """The measurement of the lists that a baseline left, checked to be of the same users and pairs."""
    record = EvaluationRecord.read(folder / "metrics.json")
    ids = _user_ids(vocabularies, model)
    stands_on = ("split_digest", "part", "metric_version")
    same = all(getattr(record, name) == getattr(model, name) for name in stands_on)
    if not (same and set(model.ks) <= set(record.ks) and read_user_ids(folder / "per_user.parquet").equals(ids)):
        raise InputError(
            f"The baseline '{name}' in {folder} was measured on another split, other users or other list lengths than "
            "the model; evaluate both on one graph with the same k, ks, num_users and seed."
        )
    return model.of(read_lists(folder / "lists.parquet", ids, vocabularies / "songs.parquet", model.ks[-1]))


def _with_aggregates(record: EvaluationRecord, model: Evaluation, others: Mapping[str, Evaluation]) -> EvaluationRecord:
    """With coverage and Gini, which are no means over users and have intervals of their own kind."""
    own, rivals = _aggregates(model), {name: _aggregates(other) for name, other in others.items()}
    gaps = {name: {metric: own[metric] - found[metric] for metric in own} for name, found in rivals.items()}
    update = {
        "metrics": {**record.metrics, **_intervals(own)},
        "baselines": {name: {**found, **_intervals(rivals[name])} for name, found in record.baselines.items()},
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


def _write_lists(path: Path, vocabularies: Path, model: Evaluation, score: Score, length: int) -> None:
    users, songs = vocabularies / "users.parquet", vocabularies / "songs.parquet"
    if len(model.users) == model.eligible_users:
        write_ranked(model.users, model.ranked, users, songs, path, length)
    else:
        write_lists(score, model.graph, users, songs, path, length, model.part)


def _write_per_user(path: Path, vocabularies: Path, model: Evaluation, others: Mapping[str, Evaluation]) -> None:
    columns = {name: values.numpy() for name, values in model.per_user.items()}
    for baseline, evaluation in others.items():
        columns |= {f"{baseline} {name}": values.numpy() for name, values in evaluation.per_user.items()}
    write_per_user(path, _user_ids(vocabularies, model), columns)


def _user_ids(vocabularies: Path, model: Evaluation) -> pa.Array:
    ids = pq.read_table(vocabularies / "users.parquet", columns=["user_id"])["user_id"]
    return ids.combine_chunks().cast(pa.string()).take(model.users.numpy())
