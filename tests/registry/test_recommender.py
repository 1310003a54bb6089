from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch_geometric.data import HeteroData

from data.errors import InputError
from evaluation.vector_scores import VectorScores
from models.item_paths.local_scorer import LocalScorer
from registry.bundle.assemble import assemble_bundle
from registry.bundle.manifest import verify_bundle
from registry.bundle.seen_tables import KNOWN
from registry.recommender import SEEN, Recommender, _best


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


def lists_of(bundle: Path) -> dict[str, list[tuple[str, float]]]:
    lists: dict[str, list[tuple[str, float]]] = {}
    for row in pq.read_table(bundle / "lists.parquet").to_pylist():
        lists.setdefault(row["user_id"], []).append((row["track_id"], row["score"]))
    return lists


def recommended(bundle: Path) -> dict[str, list[tuple[str, float]]]:
    recommender = Recommender.load(bundle)
    found = {user: recommender.recommend(user, 10, seen="train") for user in lists_of(bundle)}
    return {user: [(record["track_id"], record["score"]) for record in records] for user, records in found.items()}


def test_all_that_is_seen_is_every_part_of_the_table() -> None:
    assert SEEN["all"] == KNOWN


def test_agrees_with_the_lists_of_the_evaluation(bundle: Path) -> None:
    assert recommended(bundle) == lists_of(bundle)


@pytest.mark.parametrize("share", [2.0, 0.0])
def test_agrees_with_the_evaluation_of_a_model_with_a_local_channel(
    with_local: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Whether one user's edges are counted or those of all songs."""
    monkeypatch.setattr("models.item_paths.local_scorer.ALL_EDGES_FROM", share)
    assert recommended(with_local) == lists_of(with_local)
    assert lists_of(with_local) != lists_of(bundle)


def test_a_refit_recommends_by_its_own_local_channel(make_parts, tmp_path: Path) -> None:
    parts, refit = make_parts(similarity=1.0), make_parts(similarity=0.0)
    assemble_bundle(tmp_path / "bundle", **parts, refit=refit["model"])
    manifest, model = verify_bundle(tmp_path / "bundle"), Recommender.load(tmp_path / "bundle")
    vectors = load_file(refit["model"] / "embeddings.safetensors")
    local = LocalScorer.load(refit["model"] / "local.safetensors")
    expected = VectorScores(vectors["user"], vectors["song"], local)(torch.arange(40)).numpy()
    assert (np.stack([model.scores(user) for user in range(40)]) == expected).all()
    evaluated = Recommender(tmp_path / "bundle", manifest, manifest.evaluated)
    assert not (evaluated.scores(0) == expected[0]).all()


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


def all_held_out(graph: HeteroData, user: int) -> None:
    """As a temporal split leaves a user whose first listen lies in the test days."""
    store = graph["user", "listens", "song"]
    own = store.edge_index[0] == user
    for part in ("train", "val", "test"):
        store[f"{part}_mask"] &= ~own
    store.new_user_test_index = store.edge_index[:, own]


NOT_LEARNED = "The model has learned nothing of the user 'u03', whose first listen came after those .* next training"


def test_a_user_of_whom_the_model_has_learned_nothing_gets_no_random_list(make_parts, tmp_path: Path) -> None:
    parts = make_parts()
    all_held_out(parts["graph"], 3)
    assemble_bundle(tmp_path / "bundle", **parts)
    model = Recommender.load(tmp_path / "bundle")
    for seen in ("all", "train", "none"):
        with pytest.raises(InputError, match=NOT_LEARNED):
            model.recommend("u03", seen=seen)
    with pytest.raises(InputError, match=NOT_LEARNED):
        model.explain("u03", "t01")
    assert len(model.recommend("u02", 4)) == len(model.recommend("u04", 4)) == 4


def test_a_refit_has_learned_of_users_whom_the_evaluated_model_does_not_know(make_parts, tmp_path: Path) -> None:
    parts = make_parts()
    all_held_out(parts["graph"], 3)
    assemble_bundle(tmp_path / "bundle", **parts, refit=make_parts(quality=2.0)["model"])
    model = Recommender.load(tmp_path / "bundle")
    assert len(model.recommend("u03", 4)) == 4
    assert model.explain("u03", "t01")["track_id"] == "t01"
    evaluated = Recommender(tmp_path / "bundle", model.manifest, model.manifest.evaluated)
    with pytest.raises(InputError, match=NOT_LEARNED):
        evaluated.recommend("u03")


def test_an_unknown_user_is_named(bundle: Path) -> None:
    with pytest.raises(InputError, match="The user 'nobody' is unknown to this model, which knows 40 users"):
        Recommender.load(bundle).recommend("nobody")


def test_what_cannot_be_asked(bundle: Path) -> None:
    recommender = Recommender.load(bundle)
    with pytest.raises(InputError, match="k is 0; ask for at least one song"):
        recommender.recommend("u00", k=0)
    with pytest.raises(InputError, match="seen is 'test'; allowed are all, train, none"):
        recommender.recommend("u00", seen="test")


def loaded_by(bundle: Path) -> set[str]:
    code = (
        "import sys; from pathlib import Path; from registry.recommender import Recommender;"
        f"Recommender.load(Path({str(bundle)!r})).recommend('u00');"
        "print(*{'torch', 'mlflow', 'numba'} & set(sys.modules))"
    )
    return set(
        subprocess.run([sys.executable, "-c", code], check=True, text=True, stdout=subprocess.PIPE).stdout.split()
    )


@pytest.mark.slow
def test_recommending_does_not_load_torch_or_mlflow(bundle: Path, with_local: Path) -> None:
    assert loaded_by(bundle) == set()
    assert loaded_by(with_local) == {"numba"}


def test_the_terms_of_an_explanation_add_up_to_the_score(with_local: Path) -> None:
    model = Recommender.load(with_local)
    for record in model.recommend("u03", k=5):
        found = model.explain("u03", record["track_id"], k=2)
        assert found["score"] == pytest.approx(record["score"], abs=1e-5)
        added = [song["by_listeners"] + song["by_artists"] for song in found["because"]]
        terms = [found["vectors"], found["popularity"], found["other_songs"], *added]
        assert sum(terms) == pytest.approx(found["score"], abs=1e-9)
        assert len(added) <= 2
        assert added == sorted(added, reverse=True)


def test_an_explanation_names_songs_that_the_user_trained_the_model_with(with_local: Path) -> None:
    model = Recommender.load(with_local)
    best = model.recommend("u03", k=1)[0]["track_id"]
    named = {song["track_id"] for song in model.explain("u03", best, k=100)["because"]}
    assert named
    assert named <= listened(with_local, 3, ("train",))


def test_without_a_local_channel_the_vectors_are_the_whole_explanation(bundle: Path) -> None:
    model = Recommender.load(bundle)
    (best,) = model.recommend("u03", k=1)
    found = model.explain("u03", best["track_id"])
    assert found == {**best, "vectors": best["score"], "popularity": 0.0, "because": [], "other_songs": 0.0}


def test_what_cannot_be_explained_is_refused(with_local: Path) -> None:
    model = Recommender.load(with_local)
    with pytest.raises(InputError, match="The song 'nothing' is unknown to this model, which knows 30 songs"):
        model.explain("u03", "nothing")
    with pytest.raises(InputError, match="The user 'nobody' is unknown"):
        model.explain("nobody", "t01")
    with pytest.raises(InputError, match="k is -1"):
        model.explain("u03", "t01", k=-1)
