"""Two channels learn apart: what is kept from the vectors, what the channel's loss is, and that all trainers do it."""

from __future__ import annotations

import math

import pytest
import torch

from data.errors import InputError
from data.graph import LISTENS, message_graph
from models.base import Embeddings
from models.factory import create_model
from models.item_paths.listened_songs import listened_songs
from trainers import calibration as channels
from trainers.calibration import Calibration, channel_loss
from trainers.config import TrainingConfig
from trainers.names import TRAINERS
from trainers.objective import MOST_LEFT_OUT, PairObjective
from trainers.sampling import train_pairs


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def as_set(pairs):
    return {(int(user), int(song)) for user, song in pairs.T}


@pytest.fixture
def seen(tiny_training_graph):
    return message_graph(tiny_training_graph)


@pytest.fixture
def model(model_config):
    """A gat with a local channel; nothing is dropped at random."""
    return create_model({**model_config, "dropout": 0.0})


# Which pairs are kept


def test_the_same_seed_keeps_the_same_pairs_of_a_graph(seen):
    first, again, elsewhere = (Calibration(0.1, 3).pairs(graph) for graph in (seen, seen, seen.clone()))
    assert torch.equal(first, again)
    assert torch.equal(first, elsewhere)
    assert as_set(first) != as_set(Calibration(0.1, 4).pairs(seen))


def test_the_callers_random_state_does_not_choose_and_is_left_alone(seen):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Calibration(0.1, 3).pairs(seen)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, Calibration(0.1, 3).pairs(seen))


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.999])
def test_the_share_is_that_of_the_train_pairs(tiny_training_graph, ratio):
    pairs, train = Calibration(ratio, 0).pairs(tiny_training_graph), train_pairs(tiny_training_graph)
    assert pairs.shape[1] == len(as_set(pairs)) == round(ratio * train.shape[1])
    assert as_set(pairs) <= as_set(train)


def test_at_least_one_pair_is_kept(seen):
    assert Calibration(1e-9, 0).pairs(seen).shape == (2, 1)


def test_contains_exactly_the_kept_pairs(seen):
    calibration, train = Calibration(0.2, 0), train_pairs(seen)
    assert as_set(train[:, calibration.contains(seen, train)]) == as_set(calibration.pairs(seen))
    assert calibration.contains(seen, train[:, :0]).shape == (0,)


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 2])
def test_a_share_of_nothing_or_of_all_is_refused(ratio):
    with pytest.raises(InputError, match="calibration_ratio"):
        TrainingConfig.parse({"calibration_ratio": ratio}, "training_config")


# What the vectors learn from


class Watched:
    """An objective of a model whose encodings and losses are written down.

    Attributes:
        left_out: of each encoding, the pairs whose edges carried no message.
        positives: all pairs (user, song) that the vectors' loss raised; negatives: those that it lowered.
    """

    def __init__(self, monkeypatch, model, **config):
        self.model, self.objective = model, PairObjective(TrainingConfig(**config))
        self.left_out, self.positives, self.negatives = [], [], set()
        self.encode, self.vectors = model.encode_without, None
        monkeypatch.setattr(model, "encode_without", self._encode_without)
        for name, watch in (("sampled_softmax", self._softmax), ("bpr", self._bpr)):
            monkeypatch.setattr(f"trainers.objective.{name}", watch)

    def loss(self, graph, pairs, seed=0):
        return self.objective.loss(self.model, graph, *pairs, generator(seed))

    def kept(self, graph):
        return as_set(self.objective.calibration.pairs(graph))

    def _encode_without(self, graph, pairs):
        self.left_out.append(pairs)
        self.vectors = self.encode(graph, pairs)
        return self.vectors

    def _pairs(self, users, songs):
        return list(zip(which(users, self.vectors.user), which(songs, self.vectors.song), strict=True))

    def _softmax(self, users, songs, rows, candidates, temperature):
        self.positives += self._pairs(users[rows], songs)
        hidden = set(map(tuple, candidates.known.T.tolist()))
        songs = which(candidates.vectors, self.vectors.song)
        for row, user in enumerate(which(users, self.vectors.user)):
            self.negatives |= {(user, song) for column, song in enumerate(songs) if (row, column) not in hidden}
        return users.sum()

    def _bpr(self, users, songs, negatives, temperature):
        self.positives += self._pairs(users, songs)
        self.negatives |= set(self._pairs(users, negatives))
        return users.sum()


def which(vectors, table):
    """The numbers of vectors, which are rows of a table."""
    found = (vectors[:, None] == table[None]).all(2)
    assert (found.sum(1) == 1).all()
    return found.nonzero()[:, 1].tolist()


@pytest.fixture
def watch(monkeypatch, model):
    return lambda other=None, **config: Watched(monkeypatch, other or model, **config)


LOSSES = {"softmax": {"num_negatives": 0}, "bpr": {"loss": "bpr"}}


@pytest.mark.parametrize("loss", LOSSES)
def test_vectors_learn_from_every_other_pair_once_and_from_no_kept_one(watch, seen, loss):
    watched = watch(**LOSSES[loss], calibration_ratio=0.2)
    watched.loss(seen, train_pairs(seen))
    assert sorted(watched.positives) == sorted(as_set(train_pairs(seen)) - watched.kept(seen))


def test_kept_pairs_compete_with_the_positives_of_their_users(watch, seen):
    watched = watch(**LOSSES["softmax"])
    watched.loss(seen, train_pairs(seen))
    users = {user for user, _ in watched.positives}
    every = {(user, song) for user in users for song in range(seen["song"].num_nodes)}
    assert watched.negatives == every - set(watched.positives)
    assert watched.negatives & watched.kept(seen)


def test_kept_pairs_are_drawn_as_negatives_of_bpr_and_learned_ones_are_not(watch, seen):
    watched, train = watch(**LOSSES["bpr"]), train_pairs(seen)
    for seed in range(40):
        watched.loss(seen, train[:, :80], seed)
    kept = watched.kept(seen)
    assert not watched.negatives & (as_set(train) - kept)
    assert watched.negatives >= {(user, song) for user, song in kept if user in train[0, :80]} > set()


def test_without_a_local_channel_vectors_learn_from_all_pairs(watch, seen, model_config):
    config = {key: value for key, value in model_config.items() if key != "heads"}
    watched = watch(create_model({**config, "architecture": "lightgcn", "dropout": 0.0}), num_negatives=0)
    batch = train_pairs(seen)[:, 40:80]
    watched.loss(seen, batch)
    assert sorted(watched.positives) == sorted(as_set(batch))
    assert not watched.negatives & as_set(train_pairs(seen))
    assert [as_set(pairs) for pairs in watched.left_out] == [as_set(batch)]


@pytest.mark.parametrize("loss", LOSSES)
def test_neither_the_batch_nor_the_kept_pairs_carry_messages(watch, seen, loss):
    watched, batch = watch(**LOSSES[loss]), train_pairs(seen)[:, 30:60]
    watched.loss(seen, batch)
    assert [as_set(pairs) for pairs in watched.left_out] == [as_set(batch) | watched.kept(seen)]


def test_a_batch_of_kept_pairs_alone_teaches_the_channel_alone(watch, seen):
    watched = watch(calibration_ratio=0.1)
    kept = watched.objective.calibration.pairs(seen)
    loss = watched.loss(seen, kept[:, :5])
    assert watched.positives == []
    loss.backward()
    assert watched.model.table.grad is None
    assert watched.model.local.gates.grad.abs().sum() > 0


def test_a_batch_larger_than_the_graph_leaves_out_a_quarter_at_a_time(watch, seen):
    watched, train = watch(num_negatives=0), train_pairs(seen)
    watched.loss(seen, train)
    assert len(watched.left_out) >= 4
    kept, batches = watched.kept(seen), [as_set(pairs) for pairs in watched.left_out]
    assert all(batch >= kept for batch in batches)
    assert max(len(batch - kept) for batch in batches) <= MOST_LEFT_OUT * train.shape[1]
    assert sum(len(batch - kept) for batch in batches) == train.shape[1] - len(kept)


def test_the_loss_of_a_large_batch_is_the_mean_over_its_pairs(model_config, seen):
    config = {key: value for key, value in model_config.items() if key != "heads"}
    average = create_model({**config, "architecture": "lightgcn", "dropout": 0.0})
    objective, train = PairObjective(TrainingConfig(num_negatives=0, l2=0)), train_pairs(seen)
    parts = train.split(int(MOST_LEFT_OUT * train.shape[1]), dim=1)
    losses = [objective.loss(average, seen, *part, generator()) * part.shape[1] for part in parts]
    whole = objective.loss(average, seen, *train, generator())
    assert torch.allclose(whole, sum(losses) / train.shape[1])


def test_the_penalty_is_that_of_the_pairs_that_vectors_learn_from(model, seen):
    batch, losses = train_pairs(seen)[:, :60], []
    for l2 in (0.0, 3.0):
        objective = PairObjective(TrainingConfig(l2=l2, calibration_ratio=0.2))
        losses.append(objective.loss(model, seen, *batch, generator()))
    learned = batch[:, ~objective.calibration.contains(seen, batch)]
    expected = 3.0 / (2 * learned.shape[1]) * model.penalty(*learned)
    assert learned.shape[1] < 60
    assert torch.allclose(losses[1] - losses[0], expected, rtol=1e-4)


def test_what_the_vectors_learn_does_not_depend_on_the_channel(model, seen):
    gradients = []
    for _ in range(2):
        model.zero_grad()
        PairObjective(TrainingConfig()).loss(model, seen, *train_pairs(seen)[:, :60], generator()).backward()
        gradients.append(model.table.grad.clone())
        with torch.no_grad():
            for parameter in model.local.parameters():
                parameter += 0.1
    assert torch.equal(*gradients)


# The channel's loss


def naive_loss(model, graph, embeddings, pairs, chosen):
    """Mean over the pairs of -log of the positive's share of exp(score), candidates counting for all songs."""
    known, train, total = listened_songs(graph), as_set(train_pairs(graph)), 0.0
    for user, song in pairs.T:
        similarity = embeddings.user[user] @ embeddings.song.T
        own = model.local.pair_scores(known, user[None], song[None], similarity[song][None])[0]
        scores = model.local.scores(known, user[None], chosen, similarity[None, chosen])[0]
        unknown = torch.tensor([(int(user), int(candidate)) not in train for candidate in chosen])
        others = scores[unknown].double().exp().sum() * len(embeddings.song) / len(chosen)
        total += math.log(own.double().exp() + others) - float(own)
    return total / pairs.shape[1]


def loss_of(model, graph, embeddings, pairs, negatives, seed=0):
    drawn = channels.CalibrationBatch.draw(pairs, graph["song"].num_nodes, 8, negatives, generator(seed))
    return channel_loss(model.local, graph, embeddings, drawn)


@pytest.fixture
def embeddings(model, seen):
    return model.encode(seen)


def test_the_loss_against_all_songs_is_the_formula(model, seen, embeddings):
    pairs = Calibration(0.1, 0).pairs(seen)
    loss = loss_of(model, seen, embeddings, pairs, 0)
    with torch.no_grad():
        expected = naive_loss(model, seen, embeddings, pairs, torch.arange(30))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_the_loss_against_sampled_songs_is_the_formula(monkeypatch, model, seen, embeddings):
    pairs, chosen = Calibration(0.1, 0).pairs(seen), torch.tensor([29, 3, 14, 7, 0, 21, 8])
    asked = []
    monkeypatch.setattr(channels, "sample_songs", lambda *given: asked.append(given[:2]) or chosen)
    loss = loss_of(model, seen, embeddings, pairs, 7)
    with torch.no_grad():
        expected = naive_loss(model, seen, embeddings, pairs, chosen)
    assert asked == [(30, 7)]
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


class Calls:
    """What a channel is asked for."""

    def __init__(self, monkeypatch, local):
        self.pairs, self.candidates = [], []
        pair_scores, scores = local.pair_scores, local.scores

        def watch_pairs(known, users, songs, similarity):
            self.pairs.append(torch.stack([users, songs]))
            return pair_scores(known, users, songs, similarity)

        def watch_scores(known, users, candidates, similarity):
            self.candidates.append(candidates)
            return scores(known, users, candidates, similarity)

        monkeypatch.setattr(local, "pair_scores", watch_pairs)
        monkeypatch.setattr(local, "scores", watch_scores)


def test_many_kept_pairs_are_drawn_from(monkeypatch, model, seen, embeddings):
    monkeypatch.setattr(channels, "MOST_PAIRS", 4)
    calls, pairs = Calls(monkeypatch, model.local), Calibration(0.2, 0).pairs(seen)
    for seed in range(12):
        loss_of(model, seen, embeddings, pairs, 0, seed)
    assert {len(as_set(drawn)) for drawn in calls.pairs} == {4}
    assert set.union(*map(as_set, calls.pairs)) <= as_set(pairs)
    assert len(set.union(*map(as_set, calls.pairs))) > 20


@pytest.mark.parametrize(("batch", "expected"), [(8, 3), (40, 5), (800, 9)])
def test_the_channels_take_an_eighth_of_the_batch_within_bounds(monkeypatch, seen, batch, expected):
    monkeypatch.setattr(channels, "LEAST_PAIRS", 3)
    monkeypatch.setattr(channels, "MOST_PAIRS", 9)
    draw = channels.CalibrationBatch.draw(Calibration(0.2, 0).pairs(seen), 30, batch, 0, generator())
    assert len(draw.songs) == len(draw.row) == expected


@pytest.mark.parametrize(("negatives", "expected"), [(0, 9), (20, 9), (6, 6)])
def test_songs_that_compete_are_limited(monkeypatch, seen, negatives, expected):
    monkeypatch.setattr(channels, "MOST_SONGS", 9)
    draw = channels.CalibrationBatch.draw(Calibration(0.2, 0).pairs(seen), 30, 8, negatives, generator())
    assert len(draw.negatives.unique()) == expected


def test_only_the_channel_gets_a_gradient(model, seen, embeddings):
    loss_of(model, seen, embeddings, Calibration(0.2, 0).pairs(seen), 0).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("local."):
            assert (parameter.grad != 0).any(), name
        else:
            assert parameter.grad is None, name


def test_a_user_who_knows_every_song_costs_nothing_and_breaks_nothing(model, seen):
    train = train_pairs(seen)
    all_songs = torch.stack([torch.zeros(30, dtype=torch.long), torch.arange(30)])
    seen[LISTENS].edge_index = torch.cat([all_songs, train[:, train[0] > 0]], 1)
    seen[LISTENS].weight = torch.ones(seen[LISTENS].edge_index.shape[1])
    embeddings = Embeddings(*(vectors.detach() for vectors in model.encode(seen)))
    every, apart = all_songs[:, :3], seen[LISTENS].edge_index[:, [35, 50, 80]]
    alone, both, rest = (
        loss_of(model, seen, embeddings, pairs, 0) for pairs in (every, torch.cat([every, apart], 1), apart)
    )
    assert torch.equal(alone, torch.zeros(()))
    assert torch.allclose(both, rest / 2)
    (alone + both).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.local.parameters())


# All of it together


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("batch_size", [64, 10**6])
@pytest.mark.parametrize("name", sorted(set(TRAINERS) - {"federated"}))  # which refuses a local channel
def test_every_trainer_teaches_both_channels(make_trainer, tiny_graph, name, loss, batch_size):
    trainer = make_trainer(name, batch_size=batch_size, **LOSSES[loss])
    before = {key: value.detach().clone() for key, value in trainer.model.named_parameters()}
    record = trainer.train(tiny_graph, 2)["history"][-1]
    assert all(math.isfinite(value) for value in record.values())
    for key, value in trainer.model.named_parameters():
        assert torch.isfinite(value).all(), key
        assert not torch.equal(value, before[key]), key


@pytest.mark.parametrize("loss", LOSSES)
def test_the_channel_learns(make_trainer, tiny_graph, loss):
    """On the kept pairs, against all songs, with the vectors as they are in the end."""
    trainer = make_trainer("simple", **LOSSES[loss], calibration_ratio=0.2)
    start = {key: value.clone() for key, value in trainer.model.local.state_dict().items()}
    trainer.train(tiny_graph, 12)
    seen = message_graph(tiny_graph)
    pairs = trainer.objective.calibration.pairs(seen)
    embeddings = trainer.model.eval().encode_without(seen, pairs)
    learned = loss_of(trainer.model, seen, embeddings, pairs, 0)
    trainer.model.local.load_state_dict(start)
    assert learned < loss_of(trainer.model, seen, embeddings, pairs, 0)
