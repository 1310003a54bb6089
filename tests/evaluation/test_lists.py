from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch_geometric.data import HeteroData

from data.errors import InputError
from evaluation import lists
from evaluation.lists import read_lists, write_lists
from evaluation.ranking import rank

FALLING = torch.arange(6.0).neg().repeat(5, 1)


@pytest.fixture
def vocabularies(tmp_path: Path) -> tuple[Path, Path]:
    users, songs = tmp_path / "users.parquet", tmp_path / "songs.parquet"
    pq.write_table(pa.table({"user_id": [f"u{i}" for i in range(5)]}), users)
    pq.write_table(pa.table({"track_id": [f"t{i}" for i in range(6)]}), songs)
    return users, songs


def test_every_user_with_a_test_song_has_a_list_without_train_songs(
    graph: HeteroData, vocabularies: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "lists.parquet"
    assert write_lists(lambda users: FALLING[users], graph, *vocabularies, path, k=2) == 3
    assert pq.read_table(path).to_pylist() == [
        {"user_id": "u0", "rank": 1, "track_id": "t2", "score": -2.0},
        {"user_id": "u0", "rank": 2, "track_id": "t3", "score": -3.0},
        {"user_id": "u1", "rank": 1, "track_id": "t1", "score": -1.0},
        {"user_id": "u1", "rank": 2, "track_id": "t2", "score": -2.0},
        {"user_id": "u2", "rank": 1, "track_id": "t2", "score": -2.0},
        {"user_id": "u2", "rank": 2, "track_id": "t3", "score": -3.0},
    ]


def test_a_list_ends_where_no_song_is_left(graph: HeteroData, vocabularies: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "lists.parquet"
    write_lists(lambda users: FALLING[users], graph, *vocabularies, path, k=100)
    counts = pq.read_table(path).group_by("user_id").aggregate([("rank", "max")])
    assert dict(zip(counts["user_id"].to_pylist(), counts["rank_max"].to_pylist(), strict=True)) == {
        "u0": 4,
        "u1": 5,
        "u2": 4,
    }


def test_writing_in_batches_of_users_changes_no_row(
    graph: HeteroData, vocabularies: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lists(lambda users: FALLING[users], graph, *vocabularies, tmp_path / "whole.parquet")
    monkeypatch.setattr(lists, "USERS_AT_ONCE", 1)
    write_lists(lambda users: FALLING[users], graph, *vocabularies, tmp_path / "parts.parquet")
    assert pq.read_table(tmp_path / "whole.parquet").equals(pq.read_table(tmp_path / "parts.parquet"))


def test_what_was_written_is_read_back_for_the_users_asked_for(
    graph: HeteroData, vocabularies: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lists.parquet"
    write_lists(lambda users: FALLING[users], graph, *vocabularies, path)
    monkeypatch.setattr(lists, "ROWS_AT_ONCE", 3)
    found = read_lists(path, pa.array(["u2", "u4", "u0"]), vocabularies[1], 5)
    train = graph["user", "listens", "song"].edge_index[:, graph["user", "listens", "song"].train_mask]
    expected = rank(lambda users: FALLING[users], torch.tensor([2, 0]), train, 5)
    assert torch.equal(found.items[[0, 2]], expected.items)
    assert torch.equal(found.scores[[0, 2]], expected.scores)
    assert found.items[1].tolist() == [-1] * 5  # u4 has no list


def test_lists_of_another_catalogue_are_refused(
    graph: HeteroData, vocabularies: tuple[Path, Path], tmp_path: Path
) -> None:
    write_lists(lambda users: FALLING[users], graph, *vocabularies, tmp_path / "lists.parquet", k=1)
    pq.write_table(pa.table({"track_id": ["t0", "t1"]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="The lists name the song 't2', which the vocabulary lacks"):
        read_lists(tmp_path / "lists.parquet", pa.array(["u0"]), tmp_path / "other.parquet", 1)


def test_damaged_lists_are_refused(vocabularies: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "lists.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="not a readable table of lists; evaluate again"):
        read_lists(tmp_path / "lists.parquet", pa.array(["u0"]), vocabularies[1], 1)
