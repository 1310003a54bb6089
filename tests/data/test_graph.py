"""data/graph.py: the graph is complete, stable to the byte, loads safely, and lets only train edges through."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import (
    BY,
    LISTENS,
    REV_BY,
    REV_LISTENS,
    build_graph,
    graph_counts,
    graph_digest,
    has_masks,
    load_graph,
    message_graph,
    save_graph,
)
from data.split import SplitConfig
from data.training_graph import split_graph
from data.weights import WeightConfig, listen_weight


@pytest.fixture
def folder(tmp_path, make_listens, make_listens_folder) -> Path:
    return make_listens_folder(tmp_path / "listens", make_listens())


def test_edges_are_the_distinct_pairs_in_order_with_their_sums(folder, make_listens):
    store = build_graph(folder)[LISTENS]
    rows = make_listens().to_pandas().groupby(["user", "song"], as_index=False)
    expected = rows.agg(
        plays=("plays", "sum"), skips=("skips", "sum"), first=("first_played", "min"), last=("last_played", "max")
    )
    assert store.edge_index.tolist() == [expected.user.tolist(), expected.song.tolist()]
    assert store.plays.tolist() == expected.plays.tolist()
    assert store.skips.tolist() == expected.skips.tolist()
    assert store.first_played.tolist() == expected["first"].tolist()
    assert store.last_played.tolist() == expected["last"].tolist()


def test_weight_and_completion_of_a_pair_come_from_all_its_rows(folder, make_listens):
    store = build_graph(folder, WeightConfig(half_life_days=30))[LISTENS]
    frame = make_listens().to_pandas()
    user, song = store.edge_index[:, 0].tolist()
    rows = frame[(frame.user == user) & (frame.song == song)]
    age = (frame.day.max() - rows.day).to_numpy()
    weight = listen_weight(rows.plays, rows.completion, age, 30, starts=torch.tensor([0]).numpy())
    assert store.weight[0].item() == pytest.approx(weight[0], rel=1e-6)
    assert store.completion[0].item() == pytest.approx(
        (rows.plays * rows.completion).sum() / rows.plays.sum(), rel=1e-6
    )


def test_reverse_edges_mirror_the_edges(tiny_graph):
    assert torch.equal(tiny_graph[REV_LISTENS].edge_index, tiny_graph[LISTENS].edge_index.flip(0))
    assert torch.equal(tiny_graph[REV_LISTENS].weight, tiny_graph[LISTENS].weight)
    assert torch.equal(tiny_graph[REV_BY].edge_index, tiny_graph[BY].edge_index.flip(0))


def test_a_song_keeps_all_its_artists_and_one_without_any_is_kept(folder):
    graph = build_graph(folder)
    songs = graph[BY].edge_index[0].bincount(minlength=graph["song"].num_nodes)
    assert songs[0] == 2
    assert songs[1] == 0
    assert graph["song"].num_nodes == 30


def test_counts_are_those_of_the_tables(folder, make_listens):
    pairs = make_listens().to_pandas()[["user", "song"]].drop_duplicates()
    counts = {"users": 40, "songs": 30, "artists": 6, "pairs": len(pairs), "song_artists": 29 + 6}
    assert graph_counts(build_graph(folder)) == counts


def test_columns_that_the_log_does_not_give_are_absent(tmp_path, make_listens, make_listens_folder):
    bare = make_listens().select(["user", "song", "plays"])
    store = build_graph(make_listens_folder(tmp_path / "listens", bare))[LISTENS]
    assert {"skips", "completion", "first_played", "last_played"}.isdisjoint(store.keys())
    assert torch.allclose(store.weight, torch.log2(1.0 + store.plays))


def test_a_graph_without_artists_works_everywhere(tmp_path, make_listens, make_listens_folder):
    graph = build_graph(make_listens_folder(tmp_path / "listens", make_listens(), num_artists=0))
    divided = split_graph(graph, SplitConfig())
    save_graph(divided, tmp_path / "graph.pt")
    seen = message_graph(load_graph(tmp_path / "graph.pt"))
    assert graph["artist"].num_nodes == seen["artist"].num_nodes == 0
    assert seen[BY].edge_index.shape == seen[REV_BY].edge_index.shape == (2, 0)


@pytest.mark.slow
def test_the_same_log_gives_the_same_bytes_in_another_folder_and_process(tmp_path, folder):
    code = (
        "import sys, pathlib; from data.graph import build_graph, save_graph\n"
        "save_graph(build_graph(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]))"
    )
    (tmp_path / "other").mkdir()
    save_graph(build_graph(folder), tmp_path / "graph.pt")
    subprocess.run(
        [sys.executable, "-c", code, str(folder), str(tmp_path / "other" / "graph.pt")],
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert (tmp_path / "graph.pt").read_bytes() == (tmp_path / "other" / "graph.pt").read_bytes()


def test_plain_torch_load_reads_the_graph_under_its_safe_default(tmp_path, tiny_graph):
    save_graph(tiny_graph, tmp_path / "graph.pt")
    loaded = torch.load(tmp_path / "graph.pt")
    assert isinstance(loaded, HeteroData)
    assert graph_digest(loaded) == graph_digest(tiny_graph)


def test_absent_damaged_and_foreign_files_are_sentences(tmp_path, tiny_graph):
    path = tmp_path / "graph.pt"
    with pytest.raises(InputError, match=r"There is no graph at .*graph\.pt; build it with"):
        load_graph(path)
    save_graph(tiny_graph, path)
    whole = path.read_bytes()
    for damaged in (b"", b"not a graph", whole[: len(whole) // 2], whole[:300] + b"\x00" * 300 + whole[600:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged or not a graph file"):
            load_graph(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"graph\.pt cannot be read: Is a directory\."):
        load_graph(path)
    path.rmdir()
    torch.save({"user": 1}, path)
    with pytest.raises(InputError, match="holds no graph with the node types user, song, artist"):
        load_graph(path)


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_never_becomes_another_graph(tmp_path_factory, make_graph, place, bit):
    path = tmp_path_factory.mktemp("flipped") / "graph.pt"
    graph = make_graph()
    save_graph(graph, path)
    damaged = bytearray(path.read_bytes())
    damaged[int(place * len(damaged))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        assert graph_digest(load_graph(path)) == graph_digest(graph)
    except InputError:
        return


def test_a_missing_or_damaged_table_is_named(folder):
    (folder / "songs.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"songs.parquet is not a Parquet file"):
        build_graph(folder)
    (folder / "songs.parquet").unlink()
    with pytest.raises(InputError, match=r"The listens folder lacks songs.parquet"):
        build_graph(folder)


def test_only_train_edges_carry_messages(tiny_training_graph):
    store, seen = tiny_training_graph[LISTENS], message_graph(tiny_training_graph)
    train = store.edge_index[:, store.train_mask]
    assert has_masks(tiny_training_graph)
    assert torch.equal(seen[LISTENS].edge_index, train)
    assert torch.equal(seen[REV_LISTENS].edge_index, train.flip(0))
    assert torch.equal(seen[LISTENS].weight, store.weight[store.train_mask])
    assert torch.equal(seen[BY].edge_index, tiny_training_graph[BY].edge_index)
    assert {name: set(seen[name].keys()) for name in seen.node_types} == {
        "user": {"num_nodes"},
        "song": {"num_nodes"},
        "artist": {"num_nodes"},
    }
    assert set(seen[LISTENS].keys()) == set(seen[REV_LISTENS].keys()) == {"edge_index", "weight"}


def test_without_masks_every_edge_carries_messages(tiny_graph):
    assert not has_masks(tiny_graph)
    assert torch.equal(message_graph(tiny_graph)[LISTENS].edge_index, tiny_graph[LISTENS].edge_index)


def test_messages_cannot_be_changed_through_the_whole_graph(tiny_training_graph):
    seen = message_graph(tiny_training_graph)
    before = graph_digest(seen)
    for store in (tiny_training_graph[LISTENS], tiny_training_graph[BY], tiny_training_graph[REV_LISTENS]):
        store.edge_index.zero_()
    assert graph_digest(seen) == before


def test_the_digest_sees_every_value_and_nothing_else(make_graph):
    graph, same = make_graph(seed=1), make_graph(seed=1)
    assert graph_digest(graph) == graph_digest(same)
    same[LISTENS].weight[3] += 1e-3
    assert graph_digest(graph) != graph_digest(same)
    assert graph_digest(graph) != graph_digest(make_graph(seed=2))
