from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from torch_geometric.data import HeteroData

from data.errors import InputError
from evaluation.baselines.popular import popularity
from evaluation.evaluation import evaluate
from evaluation.record import EvaluationRecord, paired_columns, write_per_user


def test_a_record_is_read_back_as_it_was_written(graph: HeteroData, tmp_path: Path) -> None:
    evaluation = evaluate(popularity(graph), graph, "test", 2, ks=[4])
    record = evaluation.record({"popularity": evaluation}, samples=50)
    record.write(tmp_path / "metrics.json")
    assert EvaluationRecord.read(tmp_path / "metrics.json") == record
    first = (tmp_path / "metrics.json").read_bytes()
    record.write(tmp_path / "metrics.json")
    assert (tmp_path / "metrics.json").read_bytes() == first


@pytest.mark.parametrize("text", [None, "", "{", '{"metric_version": 1}'])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "metrics.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r"metrics\.json is not a readable record of an evaluation"):
        EvaluationRecord.read(path)


def test_pairs_are_joined_by_user(tmp_path: Path) -> None:
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    write_per_user(one, pa.array(["a", "b", "c"]), {"recall@2": np.array([0.1, 0.2, 0.3])})
    write_per_user(two, pa.array(["c", "d", "b"]), {"recall@2": np.array([3.0, 4.0, 2.0])})
    first, second = paired_columns(one, two, "recall@2")
    assert (first.tolist(), second.tolist()) == ([0.2, 0.3], [2.0, 3.0])


def test_a_missing_metric_is_named(tmp_path: Path) -> None:
    path = tmp_path / "per_user.parquet"
    write_per_user(path, pa.array(["a"]), {"recall@2": np.array([0.1])})
    with pytest.raises(InputError, match="has no metric 'recall@9'; it has recall@2"):
        paired_columns(path, path, "recall@9")


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "per_user.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="not a readable table of users and metrics"):
        paired_columns(tmp_path / "per_user.parquet", tmp_path / "per_user.parquet", "recall@2")


def test_reading_results_does_not_load_torch() -> None:
    code = "import sys, evaluation.record, evaluation.exact_products; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
