from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch_geometric.data import HeteroData

from evaluation.record import EvaluationRecord, read_per_user
from evaluation.results import write_results


@pytest.fixture(autouse=True)
def vocabularies(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [f"u{i}" for i in range(5)]}), tmp_path / "users.parquet")
    pq.write_table(pa.table({"track_id": [f"t{i}" for i in range(6)]}), tmp_path / "songs.parquet")


def test_the_files_agree_with_each_other(graph: HeteroData, tmp_path: Path) -> None:
    rising = torch.arange(6.0).repeat(5, 1)
    record = write_results(lambda users: rising[users], graph, tmp_path, tmp_path, part="test", k=2, list_length=3)
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
        write_results(
            lambda users: rising[users], graph, tmp_path, tmp_path, part="test", k=1, num_users=num_users, list_length=5
        )
        lists.append(pq.read_table(tmp_path / "lists.parquet"))
        assert pq.read_metadata(tmp_path / "per_user.parquet").num_rows == (num_users or 3)
    assert lists[0].equals(lists[1])
