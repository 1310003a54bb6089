"""A training that starts from an earlier model: what moves by id, where new nodes stand, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import BY, LISTENS, NODE_TYPES, REV_BY, REV_LISTENS, node_counts
from data.split import SplitConfig
from data.training_graph import split_graph
from models.architectures import MODELS
from models.factory import create_model
from trainers.factory import create_trainer
from trainers.warm_start.new_nodes import initialize_new_nodes
from trainers.warm_start.transfer import EarlierModel, start_from


def renumbered(graph: HeteroData) -> HeteroData:
    """The same graph with its nodes in the opposite order."""
    other = graph.clone()
    for kind in NODE_TYPES:
        other[kind].id_hash = graph[kind].id_hash.flip(0)
    for source, relation, target in (LISTENS, REV_LISTENS, BY, REV_BY):
        last = torch.tensor([[graph[source].num_nodes - 1], [graph[target].num_nodes - 1]])
        other[source, relation, target].edge_index = last - graph[source, relation, target].edge_index
    return other


@pytest.fixture
def bundle(as_bundle, make_trainer, tiny_training_graph, tmp_path) -> Callable[..., Path]:
    """``bundle(graph, refit=True)``: a small model trained on a graph, in a folder."""

    def make(graph: HeteroData = tiny_training_graph, **facts) -> Path:
        trainer = make_trainer("advanced", tmp_path / "earlier")
        trainer.train(graph, 2)
        return as_bundle(trainer, graph, tmp_path / "bundle", **facts)

    return make


@pytest.mark.parametrize("architecture", sorted(MODELS))
def test_rows_follow_the_ids(architecture, tiny_training_graph, tmp_path) -> None:
    config = {"architecture": architecture, "embedding_dim": 8, **node_counts(tiny_training_graph)}
    first, second = create_model(config, seed=0).eval(), create_model(config, seed=1).eval()
    other = renumbered(tiny_training_graph)
    second.load_state_dict(start_from(EarlierModel.of(first, tiny_training_graph), second, other))
    with torch.no_grad():
        before, after = first.encode(tiny_training_graph), second.encode(other)
    assert torch.allclose(before.user, after.user.flip(0), atol=1e-6)
    assert torch.allclose(before.song, after.song.flip(0), atol=1e-6)


@pytest.mark.parametrize("architecture", sorted(MODELS))
def test_nodes_that_are_gone_lose_their_rows_and_new_ones_get_some(architecture, make_training_graph) -> None:
    big, small = make_training_graph(num_users=50, num_songs=36), make_training_graph(num_users=30, num_songs=24)
    models = [create_model({"architecture": architecture, "embedding_dim": 8, **node_counts(g)}) for g in (big, small)]
    shrunk = start_from(EarlierModel.of(models[0], big), models[1], small)["table"]
    assert torch.equal(shrunk[:30], models[0].table[:30])
    assert torch.equal(shrunk[30:54], models[0].table[50:74])
    grown = start_from(EarlierModel.of(models[1], small), models[0], big)["table"]
    assert torch.equal(grown[:30], models[1].table[:30])
    assert not torch.equal(grown[30:50], models[0].table[30:50])


def test_a_log_that_lost_its_artists_starts_from_a_model_that_knew_some(make_training_graph) -> None:
    with_artists, without = make_training_graph(), make_training_graph(num_artists=0)
    models = [create_model({"embedding_dim": 8, "heads": 2, **node_counts(g)}) for g in (with_artists, without)]
    state = start_from(EarlierModel.of(models[0], with_artists), models[1], without)
    assert torch.equal(state["table"], models[0].table[: 40 + 30])
    back = start_from(EarlierModel.of(models[1], without), models[0], with_artists)
    assert torch.equal(back["table"][: 40 + 30], models[1].table)


def chain() -> HeteroData:
    """User 0 hears song 0 by artist 0, who also made song 1, which only user 1 hears; user 2 hears song 2 of nobody."""
    graph = HeteroData()
    for kind, count in (("user", 3), ("song", 3), ("artist", 1)):
        graph[kind].num_nodes = count
    graph[LISTENS].edge_index = torch.tensor([[0, 1, 2], [0, 1, 2]])
    graph[LISTENS].weight = torch.ones(3)
    graph[BY].edge_index = torch.tensor([[0, 1], [0, 0]])
    return graph


def test_a_new_user_of_a_new_song_of_a_known_artist_has_a_place() -> None:
    rows = {"user": torch.zeros(3, 2), "song": torch.zeros(3, 2), "artist": torch.tensor([[0.0, 3.0]])}
    rows["user"][0], rows["song"][0] = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0])
    known = {"user": torch.tensor([1, 0, 0]) > 0, "song": torch.tensor([1, 0, 0]) > 0, "artist": torch.tensor([True])}
    initialize_new_nodes(rows, known, chain())
    assert torch.allclose(rows["song"][1], torch.tensor([0.0, 1.0]))  # the artist's direction at a song's length
    assert torch.allclose(rows["user"][1], torch.tensor([0.0, 2.0]))
    assert torch.equal(rows["user"][2], torch.zeros(2))  # nothing known leads there
    assert torch.equal(rows["song"][2], torch.zeros(2))


def test_held_out_listens_do_not_place_a_new_user(tiny_training_graph) -> None:
    store = tiny_training_graph[LISTENS]
    mine = store.edge_index[0] == 0
    rows = {kind: torch.randn(tiny_training_graph[kind].num_nodes, 4) for kind in NODE_TYPES}
    known = {kind: torch.ones(len(values), dtype=torch.bool) for kind, values in rows.items()}
    known["user"][0] = False
    length = rows["user"][1:].norm(dim=1).mean()
    expected = rows["song"][store.edge_index[1, mine & store.train_mask]].mean(0)
    initialize_new_nodes(rows, known, tiny_training_graph)
    assert torch.allclose(rows["user"][0], expected * length / expected.norm(), atol=1e-5)


def test_training_goes_on_where_the_earlier_model_ended(bundle, make_trainer, tiny_training_graph, tmp_path) -> None:
    folder = bundle()
    warm = make_trainer("advanced", tmp_path / "warm", warm_start=str(folder))
    cold = make_trainer("advanced", tmp_path / "cold")
    losses = [trainer.train(tiny_training_graph, 1)["history"][0]["loss"] for trainer in (warm, cold)]
    assert losses[0] < losses[1]


def test_the_saved_config_names_the_start_by_its_digest(bundle, make_trainer, tiny_training_graph, tmp_path) -> None:
    folder = bundle()
    digests = []
    for place in (folder, folder.rename(tmp_path / "moved")):
        trainer = make_trainer("advanced", tmp_path / place.name / "out", warm_start=str(tmp_path / "moved"))
        trainer.train(tiny_training_graph, 1)
        saved = json.loads((trainer.save_model(tmp_path / place.name / "model") / "config.json").read_text())
        assert "warm_start" not in saved["training_config"]
        digests.append(saved["warmed_from"])
    assert digests[0] == digests[1]
    assert len(digests[0]) == 64


def test_another_start_is_another_run(bundle, make_trainer, tiny_training_graph, tmp_path) -> None:
    results = [
        make_trainer("advanced", tmp_path / "out", **keys).train(tiny_training_graph, 1)["checkpoint"]
        for keys in ({}, {"warm_start": str(bundle())})
    ]
    assert results[0] != results[1]


def test_a_model_of_another_split_is_refused(bundle, make_trainer, tiny_graph, tmp_path) -> None:
    folder = bundle(split_graph(tiny_graph, SplitConfig(salt=1)))
    trainer = make_trainer("advanced", tmp_path / "out", warm_start=str(folder))
    with pytest.raises(InputError, match=r"starts from has seen: .* start from a model of the same split"):
        trainer.train(split_graph(tiny_graph, SplitConfig()), 1)


@pytest.mark.parametrize("fact", ["refit", "in_sample"])
def test_a_model_that_was_trained_on_everything_is_refused(fact, bundle, make_trainer, tiny_training_graph, tmp_path):
    trainer = make_trainer("advanced", tmp_path / "out", warm_start=str(bundle(**{fact: True})))
    with pytest.raises(InputError, match="that was not trained on everything, or remove warm_start"):
        trainer.train(tiny_training_graph, 1)


@pytest.mark.parametrize("file", ["evaluated_model.safetensors", "twin_model.safetensors"])
def test_a_training_starts_from_the_evaluated_model_of_a_refitted_one(
    bundle, make_trainer, tiny_training_graph, tmp_path, file: str
) -> None:
    """Also under the name that earlier releases gave its file."""
    folder = bundle(refit=True)
    evaluated = {name: value + 1 for name, value in load_file(folder / "model.safetensors").items()}
    save_file(evaluated, folder / file)
    trainer = make_trainer("advanced", tmp_path / "out", warm_start=str(folder))
    trainer.train(tiny_training_graph, 1)
    assert trainer.earlier is not None
    assert all(torch.equal(trainer.earlier.weights[name], value) for name, value in evaluated.items())


def test_simple_which_holds_nothing_out_may_start_from_any(bundle, make_trainer, tiny_graph, tmp_path) -> None:
    trainer = make_trainer("simple", tmp_path / "out", warm_start=str(bundle(refit=True)))
    assert trainer.train(tiny_graph, 1)["epochs_run"] == 1


def test_other_sizes_are_refused_with_both_named(bundle, model_config, training_config, tiny_training_graph, tmp_path):
    config = {**training_config, "warm_start": str(bundle())}
    trainer = create_trainer("advanced", {**model_config, "embedding_dim": 8}, config, tmp_path / "out")
    with pytest.raises(InputError, match=r"embedding_dim 16 in place of 8.*give both the same model_config"):
        trainer.train(tiny_training_graph, 1)


def test_another_architecture_is_refused(bundle, model_config, training_config, tiny_training_graph, tmp_path):
    config = {**training_config, "warm_start": str(bundle())}
    sizes = {key: value for key, value in model_config.items() if key != "heads"}
    trainer = create_trainer("advanced", {**sizes, "architecture": "mf"}, config, tmp_path / "out")
    with pytest.raises(InputError, match="architecture 'gat' in place of 'mf'"):
        trainer.train(tiny_training_graph, 1)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "songs.parquet", "seen.parquet"])
@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_a_damaged_bundle_is_named(name, content, bundle, make_trainer, tiny_training_graph, tmp_path) -> None:
    folder = bundle()
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    trainer = make_trainer("advanced", tmp_path / "out", warm_start=str(folder))
    with pytest.raises(InputError, match="bundle"):
        trainer.train(tiny_training_graph, 1)


def test_a_graph_without_ids_is_refused(bundle, make_trainer, tiny_training_graph, tmp_path) -> None:
    folder = bundle()
    del tiny_training_graph["artist"].id_hash
    trainer = make_trainer("advanced", tmp_path / "out", warm_start=str(folder))
    with pytest.raises(InputError, match="The artist nodes of the graph have no id_hash"):
        trainer.train(tiny_training_graph, 1)
