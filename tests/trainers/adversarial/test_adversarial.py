"""Vectors against perturbation, and listens of fake users kept out of training."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from data.errors import InputError
from data.graph import LISTENS, REV_LISTENS, graph_digest, message_graph
from data.split import SplitConfig
from data.training_graph import split_graph
from evaluation.parts import hidden_edges, part_edges
from models.base import Embeddings, SomeEmbeddings
from models.factory import create_model
from trainers.adversarial.fake_users import (
    FEWEST_LISTENERS,
    NONE_FOUND,
    _Audiences,
    _matrix,
    find_fake_users,
    without_listens_of,
)
from trainers.adversarial.perturbation import AdversarialObjective, gradient, moved, with_unit_rows
from trainers.factory import create_trainer
from trainers.objective import PairObjective, Step
from trainers.sampling import train_pairs

USERS, SONGS, FAKES, PUSHED = 300, 150, 20, 149
AT_ONCE = {"adversarial_weight": 0.5, "adversarial_start": 0}
APR_ALONE = {"adversarial_weight": 0.5, "max_distrusted": 0}


def with_fakes(table: pa.Table, fakes: int = FAKES) -> pa.Table:
    """Further users behind the others, each with the same fourteen songs of all tastes and the pushed one."""
    songs = np.tile([*range(14), PUSHED], fakes)
    users = np.repeat(np.arange(USERS, USERS + fakes), 15)
    like = table.take(pa.array(np.arange(len(songs))))
    columns = {"user": users, "song": songs}
    planted = {
        name: pa.array(columns[name], pa.int32()) if name in columns else like[name] for name in like.schema.names
    }
    return pa.concat_tables([table, pa.table(planted)])


@pytest.fixture(scope="session")
def honest_table(make_listens):
    """All but the first users leave the song alone that is to be pushed."""
    table = make_listens(USERS, SONGS, num_rows=5000, groups=3)
    return table.filter(pa.array((table["song"].to_numpy() != PUSHED) | (table["user"].to_numpy() < 60)))


@pytest.fixture(scope="session")
def poisoned(make_graph, honest_table):
    return make_graph(USERS + FAKES, SONGS, table=with_fakes(honest_table))


@pytest.fixture(scope="session")
def clean(make_graph, honest_table):
    return make_graph(USERS, SONGS, table=honest_table)


@pytest.fixture
def train_on(training_config, tmp_path):
    """``train_on(graph, **keys)``: an adversarial trainer after two epochs, and its results."""

    def train(graph, name="adversarial", epochs=2, **training):
        counts = {f"num_{kind}s": graph[kind].num_nodes for kind in ("user", "song", "artist")}
        config = {**training_config, "batch_size": 512, **training}
        trainer = create_trainer(name, {**counts, "embedding_dim": 16}, config, tmp_path / name)
        return trainer, trainer.train(graph, epochs)

    return train


def weights(trainer):
    return trainer.model.state_dict()


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# Perturbed vectors


def random_vectors(generator=None):
    return Embeddings(torch.randn(6, 4, generator=generator), torch.randn(9, 4, generator=generator))


def test_vectors_move_by_the_length_in_the_root_mean_square():
    vectors, direction = random_vectors(), random_vectors()
    direction.user[2] = 0
    gaps = [after - before for after, before in zip(moved(vectors, direction, 0.3, False), vectors, strict=True)]
    lengths = torch.cat(gaps).norm(dim=1)
    assert lengths[2] == 0
    assert lengths[lengths > 0].square().mean().sqrt() == pytest.approx(0.3, abs=1e-6)
    assert torch.allclose(gaps[1] / gaps[1].norm(), direction.song / direction.song.norm(), atol=1e-5)


def test_vectors_of_length_one_keep_it():
    after = moved(random_vectors(), random_vectors(), 0.5, on_sphere=True)
    assert torch.allclose(torch.cat(after).norm(dim=1), torch.ones(15))


def test_no_direction_moves_nothing():
    vectors = random_vectors()
    zeros = Embeddings(*(torch.zeros_like(rows) for rows in vectors))
    assert all(torch.equal(*rows) for rows in zip(moved(vectors, zeros, 0.5, False), vectors, strict=True))


def test_some_vectors_stay_numbered_as_they_were():
    some = SomeEmbeddings(torch.arange(0, 12, 2), torch.arange(9), random_vectors())
    after = moved(some, random_vectors(), 0.1, on_sphere=False)
    assert torch.equal(after.users, some.users)
    assert after.of_users(torch.tensor([10, 0])).shape == (2, 4)


def test_rows_of_a_direction_become_as_long_as_each_other():
    direction = random_vectors()
    direction.song[4] = 0
    scaled = with_unit_rows(Embeddings(*(rows * 1e-20 for rows in direction)))
    lengths = torch.cat(tuple(scaled)).norm(dim=1)
    assert lengths[6 + 4] == 0
    assert torch.allclose(lengths[lengths > 0], torch.ones(14))


def a_step(config, model_config, graph):
    """Objective, model, vectors and step of all train pairs, with thirty songs or one a pair to compete."""
    model = create_model({**model_config, "local": False}, seed=0)
    pairs = train_pairs(message_graph(graph))
    negatives = torch.arange(30) if config.loss == "softmax" else torch.arange(pairs.shape[1]) % 30
    return AdversarialObjective(config), model, model.encode(graph), Step(pairs, negatives, None)


@pytest.mark.parametrize("loss", ["softmax", "bpr"])
def test_the_loss_is_the_plain_one_and_a_greater_one_beside_it(loss, make_trainer, model_config, tiny_graph):
    config = make_trainer("adversarial", loss=loss, epsilon=0.2, adversarial_weight=0.25).config
    objective, model, vectors, step = a_step(config, model_config, tiny_graph)
    plain = PairObjective(config).ranking_loss(model, tiny_graph, vectors, step)
    uphill = gradient(plain, vectors, retain_graph=True)
    perturbed = moved(vectors, with_unit_rows(uphill) if loss == "bpr" else uphill, 0.2, on_sphere=True)
    harder = PairObjective(config).ranking_loss(model, tiny_graph, perturbed, step)
    assert harder > plain
    assert objective.ranking_loss(model, tiny_graph, vectors, step).item() == pytest.approx(
        (plain + 0.25 * harder).item()
    )


@pytest.mark.parametrize("architecture", ["gat", "lightgcn", "mf"])
@pytest.mark.parametrize("training", [{}, {"loss": "bpr"}, {"num_neighbors": [5, 5]}])
def test_trains_any_model_with_any_loss(architecture, training, model_config, training_config, tiny_graph, tmp_path):
    if architecture == "mf" and "num_neighbors" in training:
        pytest.skip("mf has no neighbourhoods")
    keys = {key: value for key, value in model_config.items() if key != "heads" or architecture == "gat"}
    trained = {}
    for name, own in (("advanced", {}), ("adversarial", AT_ONCE)):
        config = {**training_config, **training, **own}
        trainer = create_trainer(name, {**keys, "architecture": architecture}, config, tmp_path / name)
        assert np.isfinite(trainer.train(tiny_graph, 2)["history"][-1]["loss"])
        trained[name] = weights(trainer)
    assert not same(*trained.values())


def test_is_advanced_without_trust_unless_more_is_asked_for(train_on, poisoned):
    ours, theirs = train_on(poisoned, max_distrusted=0), train_on(poisoned, "advanced")
    assert same(weights(ours[0]), weights(theirs[0]))
    assert ours[1]["test"] == theirs[1]["test"]


def test_begins_with_ordinary_training(train_on, clean):
    ordinary = train_on(clean, "advanced", epochs=3)[1]["history"]
    ours = train_on(clean, epochs=3, **APR_ALONE, adversarial_start=2)[1]["history"]
    assert [record["loss"] for record in ours[:2]] == [record["loss"] for record in ordinary[:2]]
    assert ours[2]["loss"] > 1.2 * ordinary[2]["loss"]


def test_the_best_epoch_is_one_after_ordinary_training(train_on, clean):
    results = train_on(clean, epochs=9, **APR_ALONE, adversarial_start=4, patience=1, lr=1e-9)[1]
    assert (results["best_epoch"], results["epochs_run"]) == (5, 6)


def test_goes_on_where_ordinary_training_was_stopped(train_on, clean):
    keys = {**APR_ALONE, "adversarial_start": 2}
    train_on(clean, epochs=2, **keys)
    resumed = train_on(clean, epochs=4, **keys)
    anew = train_on(clean, epochs=4, resume=False, **keys)
    assert same(weights(resumed[0]), weights(anew[0]))
    assert resumed[1]["best_epoch"] == anew[1]["best_epoch"] > 2


def test_says_when_nothing_will_be_trained_against_perturbation(train_on, clean, caplog):
    with caplog.at_level("INFO", logger="trainers.adversarial.adversarial_trainer"):
        train_on(clean, **APR_ALONE, adversarial_start=2)
        train_on(clean, **APR_ALONE, adversarial_start=1)
        train_on(clean, max_distrusted=0)
    assert caplog.messages == [
        "adversarial_start is 2 and there are 2 epochs, so nothing is trained against perturbation; lower it or give "
        "more epochs."
    ]


def test_a_refit_begins_with_ordinary_training_too(train_on, clean, tmp_path):
    trainer, results = train_on(clean, epochs=4, **APR_ALONE, adversarial_start=2)
    refit = type(trainer)(trainer.model.config.model_dump(), trainer.config.model_dump(), tmp_path / "refit")
    losses = [record["loss"] for record in refit.refit(clean, results["history"])["history"]]
    assert losses[1] < losses[0]
    assert losses[2] > 1.2 * losses[1]


# Whom to trust


def test_agreement_equals_a_loop(clean):
    heard = _matrix(message_graph(clean))
    found, dense = _Audiences(heard), heard.toarray()
    chance = ((dense.sum(0) / dense.sum()) ** 2).sum()
    for place, song in enumerate(found.songs[::20]):
        listeners = dense[dense[:, song] > 0]
        listeners[:, song] = 0
        together, sizes = listeners @ listeners.T, listeners.sum(1)
        apart = ~np.eye(len(listeners), dtype=bool)
        expected = together[apart].sum() / (chance * np.outer(sizes, sizes)[apart].sum())
        assert found._agreement()[20 * place] == pytest.approx(expected)


def test_finds_a_group_that_pushes_a_song_and_nobody_else(poisoned):
    suspects = find_fake_users(message_graph(poisoned), most=0.1, deviations=5.0)
    assert PUSHED in suspects.songs
    assert sorted(suspects.users.tolist()) == list(range(USERS, USERS + FAKES))


def test_trusts_everybody_in_a_clean_log(clean):
    suspects = find_fake_users(message_graph(clean), most=0.1, deviations=5.0)
    assert (len(suspects.users), len(suspects.songs)) == (0, 0)


def test_never_distrusts_more_than_allowed(poisoned):
    seen = message_graph(poisoned)
    most = find_fake_users(seen, most=0.02, deviations=5.0)
    assert len(most.users) == int(0.02 * (USERS + FAKES))
    assert len(find_fake_users(seen, most=0.02, deviations=1e-6).users) == len(most.users)
    assert len(find_fake_users(seen, most=0.0, deviations=5.0).users) == 0


def test_a_song_of_few_listeners_is_not_looked_at(make_graph, honest_table):
    few = FEWEST_LISTENERS - 1
    alone = honest_table.filter(pa.array(honest_table["song"].to_numpy() != PUSHED))
    graph = make_graph(USERS + few, SONGS, table=with_fakes(alone, few))
    assert PUSHED not in find_fake_users(message_graph(graph), most=0.1, deviations=3.0).songs


def test_a_log_without_audiences_is_no_trouble(make_graph, make_listens):
    graph = make_graph(5, 8, table=make_listens(5, 8, num_rows=6))
    assert find_fake_users(message_graph(graph), most=0.5, deviations=1.0) == NONE_FOUND


def test_leaves_out_all_listens_of_a_user_in_both_directions(tiny_training_graph):
    users = torch.tensor([3, 5])
    kept, seen = without_listens_of(users, tiny_training_graph), message_graph(tiny_training_graph)
    expected = ~torch.isin(seen[LISTENS].edge_index[0], users)
    assert torch.equal(kept[LISTENS].edge_index, seen[LISTENS].edge_index[:, expected])
    assert torch.equal(kept[REV_LISTENS].edge_index, kept[LISTENS].edge_index.flip(0))
    assert torch.equal(kept[LISTENS].weight, kept[REV_LISTENS].weight)
    assert kept["user"].num_nodes == seen["user"].num_nodes


# In training


def test_nothing_of_distrusted_users_is_learned_or_read(train_on, poisoned):
    trainer, _ = train_on(poisoned, max_distrusted=0.1)
    assert set(trainer.fake_users.users.tolist()) <= set(range(USERS, USERS + FAKES))
    assert len(trainer.fake_users.users) > FAKES / 2
    distrusted = trainer.fake_users.users
    assert not torch.isin(distrusted, train_pairs(trainer.message_graph)[0]).any()
    own = trainer.local_scores(trainer.eval_graph).listens
    assert (own.degree[distrusted.numpy()] == 0).all()


def test_metrics_are_of_the_same_listens(train_on, poisoned):
    graphs = {name: train_on(poisoned, name)[0].eval_graph for name in ("adversarial", "advanced")}
    assert graph_digest(graphs["adversarial"]) == graph_digest(graphs["advanced"])
    for part in ("val", "test"):
        ours, theirs = (part_edges(graph, part) for graph in graphs.values())
        assert torch.equal(ours, theirs)
        assert torch.equal(*(hidden_edges(graph, part) for graph in graphs.values()))


def test_says_how_many_users_are_distrusted(train_on, poisoned, caplog):
    with caplog.at_level("INFO", logger="trainers.adversarial.adversarial_trainer"):
        trainer, results = train_on(poisoned, max_distrusted=0.02)
    assert [record["distrusted_users"] for record in results["history"]] == [6, 6]
    songs = len(trainer.fake_users.songs)
    assert caplog.messages == [
        f"6 of 320 users are distrusted, for {songs} song(s): their listens are not learned from."
    ]


def test_held_out_listens_say_nothing_about_trust(train_on, poisoned):
    graph = split_graph(poisoned, SplitConfig())
    store = graph[LISTENS]
    of_fakes = store.edge_index[0] >= USERS
    store.val_mask, store.train_mask = store.val_mask | (of_fakes & store.train_mask), store.train_mask & ~of_fakes
    assert len(train_on(graph, max_distrusted=0.1)[0].fake_users.users) == 0


def test_a_refit_distrusts_too(train_on, poisoned, training_config, tmp_path):
    trainer, results = train_on(poisoned, max_distrusted=0.1)
    config = {**training_config, "batch_size": 512, "max_distrusted": 0.1}
    refit = type(trainer)(trainer.model.config.model_dump(), config, tmp_path / "refit")
    refit.refit(poisoned, trainer.chosen_history(results["history"], results))
    assert set(refit.fake_users.users.tolist()) == set(range(USERS, USERS + FAKES))
    assert not (train_pairs(refit.message_graph)[0] >= USERS).any()


@pytest.mark.parametrize(
    "keys",
    [
        {"epsilon": 0},
        {"adversarial_weight": -1},
        {"adversarial_start": -1},
        {"max_distrusted": 0.5},
        {"suspicion": 0},
        {"trust": True},
    ],
)
def test_keys_that_make_no_sense_are_refused(make_trainer, keys):
    with pytest.raises(InputError, match=next(iter(keys))):
        make_trainer("adversarial", **keys)


def test_its_keys_are_refused_elsewhere_by_its_name(make_trainer):
    with pytest.raises(InputError, match="'epsilon', which belongs to 'adversarial'"):
        make_trainer("advanced", epsilon=0.5)
