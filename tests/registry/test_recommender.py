from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from registry.bundle import assemble_bundle
from registry.recommender import Recommender, _best


def listened(bundle: Path, user: int, parts: tuple[str, ...] = ("train", "val", "test")) -> set[str]:
    rows = pq.read_table(bundle / "seen.parquet").to_pylist()
    return {f"t{row['song']:02}" for row in rows if row["user"] == user and row["part"] in parts}


def test_records_come_best_first_with_names_where_known(bundle: Path) -> None:
    found = Recommender.load(bundle).recommend("u00", k=30, seen="none")
    assert [record["score"] for record in found] == sorted((record["score"] for record in found), reverse=True)
    songs = {record["track_id"]: record for record in found}
    assert len(songs) == 30
    assert songs["t00"]["artist_name"] == "Ann, Bob"
    assert "track_name" not in songs["t00"]
    assert songs["t01"]["track_name"] == "Song 1"
    assert "artist_name" not in songs["t01"]


def test_known_listens_are_hidden_by_default(bundle: Path) -> None:
    recommender = Recommender.load(bundle)
    for user in range(5):
        every, train, none = (
            {record["track_id"] for record in recommender.recommend(f"u{user:02}", 30, seen)}
            for seen in ("all", "train", "none")
        )
        assert every == none - listened(bundle, user)
        assert train == none - listened(bundle, user, ("train",))
        assert {record["track_id"] for record in recommender.recommend(f"u{user:02}", 30)} == every


def test_agrees_with_the_lists_of_the_evaluation(bundle: Path) -> None:
    recommender = Recommender.load(bundle)
    lists = pq.read_table(bundle / "lists.parquet").to_pylist()
    for user in range(40):
        expected = [(row["track_id"], row["score"]) for row in lists if row["user_id"] == f"u{user:02}"]
        found = recommender.recommend(f"u{user:02}", 10, seen="train")
        assert [(record["track_id"], record["score"]) for record in found] == expected


def test_equal_scores_are_ordered_by_song_index(bundle: Path) -> None:
    recommender = Recommender.load(bundle)
    recommender._songs = np.ones_like(recommender._songs)
    assert [record["track_id"] for record in recommender.recommend("u00", 3, "none")] == ["t00", "t01", "t02"]


@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5]), st.booleans()), min_size=1), st.integers(1, 12))
def test_the_best_open_songs_equal_a_sort(songs: list[tuple[float, bool]], k: int) -> None:
    scores, is_open = np.array([score for score, _ in songs], dtype=np.float32), np.array([flag for _, flag in songs])
    expected = sorted(np.flatnonzero(is_open).tolist(), key=lambda song: (-scores[song], song))[:k]
    assert _best(scores, is_open, k).tolist() == expected


def test_a_refitted_model_was_trained_on_all_listens_so_that_train_hides_them_all(make_parts, tmp_path: Path) -> None:
    parts, refit = make_parts(quality=1.0), make_parts(quality=2.0)["model"]
    assemble_bundle(tmp_path / "bundle", **parts, refit=refit)
    model = Recommender.load(tmp_path / "bundle")
    assert model.recommend("u00", k=30, seen="train") == model.recommend("u00", k=30, seen="all")
    assert len(model.recommend("u00", k=30, seen="none")) == 30


def test_an_unknown_user_is_named(bundle: Path) -> None:
    with pytest.raises(InputError, match="The user 'nobody' is unknown to this model, which knows 40 users"):
        Recommender.load(bundle).recommend("nobody")


def test_what_cannot_be_asked(bundle: Path) -> None:
    recommender = Recommender.load(bundle)
    with pytest.raises(InputError, match="k is 0; ask for at least one song"):
        recommender.recommend("u00", k=0)
    with pytest.raises(InputError, match="seen is 'test'; allowed are all, train, none"):
        recommender.recommend("u00", seen="test")


def test_recommending_does_not_load_torch_or_mlflow(bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from registry.recommender import Recommender;"
        f"Recommender.load(Path({str(bundle)!r})).recommend('u00');"
        "sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
