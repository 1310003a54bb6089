"""A new user's vector from few songs: that it is learned, beside a model that is none the worse for it, and kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.errors import InputError
from data.graph import LISTENS, node_counts
from evaluation.new_users import NewUsers
from evaluation.vector_scores import VectorScores
from models.few_shot import FewShot, KnownSongs, mean_of_songs
from models.item_paths.paths import Neighbors
from trainers.factory import create_trainer
from trainers.meta.episodes import Episode, known_songs, user_subset
from trainers.warm_start.transfer import EarlierModel

GROUPS = 3


def create(graph, folder, model=None, **training):
    """A trainer of a small model with no local channel, unless ``model`` says otherwise."""
    config = {"batch_size": 64, "eval_k": 5, "num_eval_users": None, "device": "cpu", **training}
    sizes = {**node_counts(graph), "embedding_dim": 16, "local": False}
    return create_trainer("meta", sizes if model is None else {**sizes, **model}, config, folder)


@pytest.fixture(scope="module")
def trained(make_training_graph, tmp_path_factory):
    """With a local channel, as the default model has it."""
    graph = make_training_graph()
    trainer = create(graph, tmp_path_factory.mktemp("meta"), {"local": True}, episode_steps=10)
    trainer.train(graph, 2)
    return trainer


def one_group(users=12):
    """Two songs of one taste for each user, as ``tests/conftest.py`` draws tastes."""
    return [torch.tensor([user % GROUPS, user % GROUPS + GROUPS]) for user in range(users)]


def test_the_model_is_the_one_that_advanced_trains(make_trainer, tiny_training_graph, tmp_path):
    ours, plain = make_trainer("meta", tmp_path / "a", episode_steps=3), make_trainer("advanced", tmp_path / "b")
    ours.train(tiny_training_graph, 2)
    plain.train(tiny_training_graph, 2)
    mine = ours.model.state_dict()
    for name, value in plain.model.state_dict().items():
        assert torch.equal(mine[name], value), name
    assert ours.history[-1]["recall@5"] == plain.history[-1]["recall@5"]


def test_the_episodes_teach(make_trainer, tiny_training_graph):
    trainer = make_trainer("meta", patience=20, episode_steps=15)
    before = {name: value.clone() for name, value in trainer.few_shot.state_dict().items()}
    results = trainer.train(tiny_training_graph, 4)
    losses = [record["few_shot_loss"] for record in results["history"]]
    assert losses[-1] < losses[0]
    changed = [name for name, value in trainer.few_shot.state_dict().items() if not torch.equal(before[name], value)]
    assert sorted(changed) == ["attention", "rates", "songs_weight", "start"]


@pytest.mark.slow
def test_adapted_vectors_find_more_than_the_mean_of_the_songs(make_training_graph, tmp_path):
    graph = make_training_graph(num_users=300, num_songs=120, num_rows=6000)
    trainer = create(graph, tmp_path, batch_size=256, num_negatives=0, patience=20, episode_steps=60)
    results = trainer.train(graph, 12)
    last = results["test"]
    assert last["few_shot_recall@5"] > 1.05 * last["mean_of_songs_recall@5"]


@pytest.mark.parametrize("model", [{"architecture": "lightgcn"}, {"architecture": "mf"}, {"similarity": "dot"}])
def test_works_with_every_model(model, tiny_training_graph, tmp_path):
    config = {**node_counts(tiny_training_graph), "embedding_dim": 16, **model}
    trainer = create_trainer("meta", config, {"eval_k": 5, "num_negatives": 10, "device": "cpu"}, tmp_path)
    results = trainer.train(tiny_training_graph, 2)
    assert np.isfinite(results["test"]["few_shot_recall@5"])
    vector = trainer.adapt(torch.tensor([3, 7]))
    assert vector.shape == (16,)
    if "similarity" not in model:
        assert float(vector.norm()) == pytest.approx(1.0, abs=1e-5)


def test_the_lists_of_new_users_leave_out_what_they_know(trained):
    lists = [torch.tensor([0, 3, 6]), torch.tensor([5])]
    ranked = trained.recommend(lists, k=8)
    assert ranked.items.shape == (2, 8)
    for known, items in zip(lists, ranked.items, strict=True):
        assert not set(known.tolist()) & set(items.tolist())
        assert len(set(items.tolist())) == 8


def test_one_user_or_many_and_whatever_the_order_of_the_songs(trained):
    together = trained.adapt_users([torch.tensor([9, 4]), torch.tensor([1, 2, 20])])
    assert torch.allclose(together[0], trained.adapt(torch.tensor([4, 9, 4])), atol=1e-6)
    assert torch.allclose(together[1], trained.adapt(torch.tensor([20, 1, 2])), atol=1e-6)


def test_a_saved_model_serves_new_users_without_the_trainer(trained, tmp_path):
    lists = one_group()
    folder = trained.save_model(tmp_path / "model")
    ours, theirs = trained.recommend(lists, 5), NewUsers.load(folder).recommend(lists, 5)
    assert torch.equal(ours.items, theirs.items)
    assert torch.equal(ours.scores, theirs.scores)


def test_a_model_of_another_trainer_is_refused(make_trainer, tiny_graph, tmp_path):
    trainer = make_trainer("advanced")
    trainer.train(tiny_graph, 1)
    folder = trainer.save_model(tmp_path / "model")
    with pytest.raises(InputError, match="has not learned to adapt; train it with the trainer 'meta'"):
        NewUsers.load(folder)


def test_the_local_channel_reads_the_known_songs_only(trained):
    """A new user with the songs of a user of the graph gets that user's local scores."""
    users = trained.new_users()
    row = trained.local_scores(trained.eval_graph).listens.rows(np.array([2]))
    known = users.known([torch.from_numpy(row.node).long()])
    vector = users.vectors(known)
    own = VectorScores(vector.repeat(40, 1), users.songs, users.local)(torch.tensor([2]))
    assert torch.equal(users.score(known)(torch.tensor([0])), own)


@pytest.mark.parametrize(
    ("songs", "told"),
    [
        ([], "A user has no known song, and a vector is made from at least one; give song indices."),
        ([0, 30], "A known song has the index 30, but there are 30 songs, counted from 0;"),
        ([-1], "A known song has the index -1, but there are 30 songs, counted from 0;"),
    ],
)
def test_songs_that_mean_nothing_are_refused(trained, songs, told):
    with pytest.raises(InputError, match=told):
        trained.adapt(torch.tensor(songs, dtype=torch.int64))


def test_nothing_is_adapted_before_the_training(make_trainer):
    with pytest.raises(InputError, match="There is no model yet that knows songs"):
        make_trainer("meta").adapt(torch.tensor([1]))


def test_an_untrained_start_is_the_mean_of_the_songs():
    songs = torch.nn.functional.normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    known = KnownSongs.of([torch.tensor([1, 5]), torch.tensor([2])], 20)
    start = FewShot(8, steps=0, temperature=0.5, unit_length=True)(known, songs)
    assert torch.allclose(start, mean_of_songs(known, songs, unit_length=True), atol=1e-6)


def test_a_step_goes_down_the_gradient_of_the_known_songs_loss():
    generator = torch.Generator().manual_seed(0)
    songs, module = torch.randn(20, 8, generator=generator), FewShot(8, steps=1, temperature=0.5, unit_length=False)
    known = KnownSongs.of([torch.tensor([1, 5, 7])], 20)
    start = songs[[1, 5, 7]].mean(0).requires_grad_()
    loss = -(start @ songs.T / 0.5).log_softmax(0)[[1, 5, 7]].mean()
    (gradient,) = torch.autograd.grad(loss, start)
    stepped = start - 0.5 * 0.5 * gradient  # the first rate, and the temperature that the bracket is multiplied by
    assert torch.allclose(module(known, songs)[0], stepped, atol=1e-5)


def test_an_episode_splits_train_songs_of_its_users_alone(tiny_training_graph):
    store = tiny_training_graph[LISTENS]
    users, songs = store.edge_index[:, store.train_mask].numpy()
    listens, generator = Neighbors.of(users, songs, 40), torch.Generator().manual_seed(0)
    able = torch.from_numpy(np.flatnonzero(listens.degree >= 2))
    episode = Episode.draw(listens, able, 4, generator)
    for row, user in enumerate(episode.users.tolist()):
        known = episode.known.songs[row][episode.known.given[row]].tolist()
        hidden = episode.songs[episode.rows == row].tolist()
        assert 1 <= len(known) <= 4
        assert hidden
        assert sorted(known + hidden) == sorted(songs[users == user].tolist())


def test_as_many_songs_are_known_as_a_user_has():
    listens = Neighbors.of(np.array([0, 1, 1, 1]), np.array([4, 1, 2, 3]), 2)
    known = known_songs(listens, torch.tensor([0, 1]), 10, torch.Generator().manual_seed(0))
    assert known.songs[0][known.given[0]].tolist() == [4]
    assert set(known.songs[1][known.given[1]].tolist()) <= {1, 2, 3}


def test_a_subset_has_at_most_its_share_of_the_listens_and_one_user_at_least():
    degree, users = torch.tensor([10, 10, 10, 10, 60]), torch.arange(5)
    for seed in range(20):
        subset = user_subset(degree, users, 0.25, torch.Generator().manual_seed(seed))
        assert len(subset) == 1 or degree[subset].sum() <= 25
    assert user_subset(degree, torch.tensor([4]), 0.25, torch.Generator()).tolist() == [4]


def test_nothing_to_learn_from_users_of_one_song(tiny_graph, tmp_path):
    store = tiny_graph[LISTENS]
    user = store.edge_index[0]
    first = torch.cat([torch.tensor([True]), user[1:] != user[:-1]])
    store.train_mask, store.val_mask, store.test_mask = first, ~first, torch.zeros_like(first)
    trainer = create(tiny_graph, tmp_path)
    results = trainer.train(tiny_graph, 1)
    assert "few_shot_loss" not in results["history"][0]
    assert trainer.adapt(torch.tensor([1])).shape == (16,)


def test_starts_from_a_model_of_another_trainer(make_trainer, tiny_training_graph, tmp_path, monkeypatch):
    plain = make_trainer("advanced", tmp_path / "a")
    plain.train(tiny_training_graph, 2)
    earlier = EarlierModel.of(plain.model, tiny_training_graph)
    monkeypatch.setattr("trainers.base.BaseTrainer.find_earlier", lambda self, graph: earlier)
    trainer = make_trainer("meta", tmp_path / "b", episode_steps=2)
    trainer.train(tiny_training_graph, 1)
    assert trainer.history[0]["loss"] < plain.history[0]["loss"]
    assert trainer.few_shot.rates.shape == (3, 16, 16)
