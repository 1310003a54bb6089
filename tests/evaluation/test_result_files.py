from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from evaluation.baselines.popular import popularity
from evaluation.metrics.accuracy import METRICS
from evaluation.ranking import Score
from evaluation.record import EvaluationRecord, read_per_user
from evaluation.result_files import EvaluationProtocol, write_results
from evaluation.slices import read_slices


@pytest.fixture(autouse=True)
def vocabularies(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [f"u{i}" for i in range(5)]}), tmp_path / "users.parquet")
    pq.write_table(pa.table({"track_id": [f"t{i}" for i in range(6)]}), tmp_path / "songs.parquet")


def test_the_files_agree_with_each_other(graph: HeteroData, tmp_path: Path) -> None:
    rising = torch.arange(6.0).repeat(5, 1)
    protocol = EvaluationProtocol("test", k=2, list_length=3)
    record = write_results(lambda users: rising[users], graph, tmp_path, tmp_path, protocol)
    assert EvaluationRecord.read(tmp_path / "metrics.json") == record
    ids, model = read_per_user(tmp_path / "per_user.parquet", "recall@2")
    assert ids.tolist() == ["u0", "u1", "u2"]
    assert model.mean() == pytest.approx(record.metrics["recall@2"].mean)
    baseline = read_per_user(tmp_path / "per_user.parquet", "popularity recall@2")[1]
    assert baseline.mean() == pytest.approx(record.baselines["popularity"]["recall@2"].mean)
    assert set(pq.read_table(tmp_path / "lists.parquet")["user_id"].to_pylist()) == set(ids)


def test_a_sample_of_users_changes_no_list(graph: HeteroData, tmp_path: Path) -> None:
    rising = torch.arange(6.0).repeat(5, 1)
    lists = []
    for num_users in (None, 2):
        protocol = EvaluationProtocol("test", k=1, num_users=num_users, list_length=5)
        write_results(lambda users: rising[users], graph, tmp_path, tmp_path, protocol)
        lists.append(pq.read_table(tmp_path / "lists.parquet"))
        assert pq.read_metadata(tmp_path / "per_user.parquet").num_rows == (num_users or 3)
    assert lists[0].equals(lists[1])


RISING = torch.arange(6.0).repeat(5, 1)
FILES = ["curves.json", "exposure.json", "lists.parquet", "metrics.json", "per_user.parquet", "slices.json"]


def results(
    graph: HeteroData,
    root: Path,
    name: str,
    score: Score,
    baselines: dict[str, Path] | None = None,
    song_vectors: Tensor | None = None,
    **choices: Any,
) -> tuple[Path, EvaluationRecord]:
    folder = root / name
    folder.mkdir()
    protocol = EvaluationProtocol(**{"part": "test", "k": 2, **choices})
    return folder, write_results(score, graph, root, folder, protocol, baselines, song_vectors)


def rising(users: Tensor) -> Tensor:
    return RISING[users]


@pytest.mark.parametrize("num_users", [None, 2])
def test_a_baseline_from_its_folder_has_the_numbers_of_one_measured_inside(
    graph: HeteroData, tmp_path: Path, num_users: int | None
) -> None:
    choices = {"ks": (4,), "num_users": num_users, "seed": 3, "song_vectors": torch.rand(6, 3)}
    own, _ = results(graph, tmp_path, "popularity", popularity(graph), baselines={}, **choices)
    inside, record = results(graph, tmp_path, "inside", rising, **choices)
    beside, other = results(graph, tmp_path, "beside", rising, baselines={"popularity": own}, **choices)
    assert other == record
    for name in FILES:
        assert (inside / name).read_bytes() == (beside / name).read_bytes(), name
    assert EvaluationRecord.read(own / "metrics.json").metrics == record.baselines["popularity"]


def test_a_baselines_own_folder_has_nothing_beside_it(graph: HeteroData, tmp_path: Path) -> None:
    folder, record = results(graph, tmp_path, "own", rising, baselines={})
    assert (record.baselines, record.differences) == ({}, {})
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert not any(" " in name for name in pq.read_schema(folder / "per_user.parquet").names)
    assert all(one.baseline is None for one in read_slices(folder / "slices.json"))


def test_popularity_stands_beside_other_baselines_too(graph: HeteroData, tmp_path: Path) -> None:
    own, _ = results(graph, tmp_path, "other", rising, baselines={})
    _, record = results(graph, tmp_path, "model", popularity(graph), baselines={"other": own})
    assert list(record.baselines) == ["popularity", "other"]
    assert {interval.mean for interval in record.differences["popularity"].values()} == {0.0}
    for metric, difference in record.differences["other"].items():
        assert difference.mean == pytest.approx(record.metrics[metric].mean - record.baselines["other"][metric].mean)
        assert difference.low <= difference.mean <= difference.high


def test_in_sample_names_say_so_everywhere(graph: HeteroData, tmp_path: Path) -> None:
    folder, record = results(graph, tmp_path, "own", rising, part="train", conventions=["kgat"])
    every = [*record.metrics, *record.differences["popularity"], *record.conventions["kgat"]]
    assert all(name.startswith("in_sample_") for name in every)
    assert {one.metric for one in read_slices(folder / "slices.json")} == {"in_sample_recall@2"}


def test_what_lists_are_like_is_measured_at_the_watched_k_only(graph: HeteroData, tmp_path: Path) -> None:
    graph["artist"].num_nodes = 2
    graph["song", "by", "artist"].edge_index = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 1, 1]])
    _, record = results(graph, tmp_path, "own", rising, ks=(4,), song_vectors=torch.eye(6))
    accuracy = {f"{name}@{k}" for k in (2, 4) for name in METRICS}
    assert set(record.metrics) - accuracy == {
        "coverage@2", "gini@2", "novelty@2", "artist_diversity@2", "embedding_diversity@2", "average_popularity@2",
        "artist_share@2",
    }  # fmt: skip
    assert record.metrics["embedding_diversity@2"].mean == 1.0
    assert record.metrics["coverage@2"].mean == 2 / 6  # all three are shown 5 and 4
    assert record.aggregate_samples > 0


def test_conventions_are_measured_when_asked_for(graph: HeteroData, tmp_path: Path) -> None:
    _, record = results(graph, tmp_path, "own", rising, ks=(1,), conventions=["min_k", "lightgcn"])
    assert record.conventions["lightgcn"]["ndcg@2"] == record.metrics["ndcg@2"]
    assert record.conventions["min_k"]["recall@1"].mean >= record.metrics["recall@1"].mean
    assert "kgat" not in record.conventions


def test_lists_are_as_long_as_the_longest_k(graph: HeteroData, tmp_path: Path) -> None:
    folder, _ = results(graph, tmp_path, "own", rising, ks=(4,), list_length=1)
    assert max(pq.read_table(folder / "lists.parquet")["rank"].to_pylist()) == 4


@pytest.mark.parametrize("other", [{"part": "val"}, {"num_users": 2}, {"k": 3}])
def test_a_baseline_on_other_ground_is_refused(graph: HeteroData, tmp_path: Path, other: dict[str, Any]) -> None:
    own, _ = results(graph, tmp_path, "ease", popularity(graph), baselines={}, **other)
    with pytest.raises(InputError) as error:
        results(graph, tmp_path, "model", rising, baselines={"ease": own})
    assert str(error.value) == (
        f"The baseline 'ease' in {own} was measured on another split, other users or other list lengths than the "
        "model; evaluate both on one graph with the same k, ks, num_users and seed."
    )


def test_a_baseline_of_another_split_is_refused(graph: HeteroData, tmp_path: Path) -> None:
    own, _ = results(graph, tmp_path, "ease", popularity(graph), baselines={})
    store = graph["user", "listens", "song"]
    store.val_mask[0], store.train_mask[0] = True, False
    with pytest.raises(InputError, match="was measured on another split"):
        results(graph, tmp_path, "model", rising, baselines={"ease": own})
