"""What every model of the factory's table owes its users."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from data.graph import LISTENS, message_graph
from evaluation.evaluation import evaluate
from evaluation.ranking import rank
from evaluation.vector_scores import VectorScores
from models.architectures import MODELS
from models.factory import create_model
from trainers.config import TrainingConfig
from trainers.loop.random_streams import own_global_stream
from trainers.objective import PairObjective
from trainers.sampling import train_pairs

STEPS = 60


@pytest.fixture(params=sorted(MODELS))
def architecture(request) -> str:
    return request.param


def fit(model, graph, steps: int = STEPS):
    """Full-batch steps on the train pairs of a graph."""
    seen, objective = message_graph(graph), PairObjective(TrainingConfig(num_negatives=0))
    optimizer, generator = torch.optim.Adam(model.parameters(), lr=0.05), torch.Generator().manual_seed(0)
    users, songs = train_pairs(graph)
    with own_global_stream(0, torch.device("cpu")):  # what dropout draws from
        for _ in range(steps):
            optimizer.zero_grad()
            objective.loss(model, seen, users, songs, generator).backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def score_of(model, graph):
    return VectorScores(*model.eval().encode(message_graph(graph)))


def build(architecture, graph, sizes, seed=0, **more):
    return create_model({"architecture": architecture, "embedding_dim": 16, **sizes(graph), **more}, seed)


def test_finds_the_withheld_song(architecture, board, sizes):
    model = fit(build(architecture, board, sizes), board)
    assert evaluate(score_of(model, board), board, "test", k=1).mean()["recall@1"] == 1.0


def test_never_recommends_what_is_hidden(architecture, board, sizes):
    users, hidden = torch.arange(board["user"].num_nodes), train_pairs(board)
    items = rank(score_of(build(architecture, board, sizes), board), users, hidden, 5).items
    known = {(int(user), int(song)) for user, song in hidden.T}
    assert not any((int(user), int(song)) in known for user in users for song in items[user])


def test_same_seed_same_scores(architecture, board, sizes):
    torch.manual_seed(1)
    first = score_of(fit(build(architecture, board, sizes, dropout=0.0), board, 5), board)
    torch.manual_seed(2)
    second = score_of(fit(build(architecture, board, sizes, dropout=0.0), board, 5), board)
    users = torch.arange(board["user"].num_nodes)
    assert torch.equal(first(users), second(users))


def test_another_seed_gives_other_scores(architecture, board, sizes):
    users = torch.arange(board["user"].num_nodes)
    first, second = (score_of(build(architecture, board, sizes, seed), board)(users) for seed in (0, 1))
    assert not torch.allclose(first, second)


def test_building_a_model_leaves_the_callers_random_state_alone(architecture, board, sizes):
    before = torch.get_rng_state()
    build(architecture, board, sizes)
    assert torch.equal(before, torch.get_rng_state())


def test_saved_weights_give_the_same_scores(architecture, board, sizes, tmp_path):
    model, other = build(architecture, board, sizes, seed=0), build(architecture, board, sizes, seed=1)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    users = torch.arange(board["user"].num_nodes)
    assert torch.equal(score_of(model, board)(users), score_of(other, board)(users))


def test_works_without_artists(architecture, make_checkerboard, sizes):
    graph = make_checkerboard(num_artists=0)
    model = fit(build(architecture, graph, sizes), graph)
    assert evaluate(score_of(model, graph), graph, "test", k=1).mean()["recall@1"] == 1.0


def test_gradient_reaches_every_parameter(architecture, board, sizes):
    board[LISTENS].weight = torch.linspace(0.5, 2.0, len(board[LISTENS].weight))
    model = build(architecture, board, sizes)
    objective, seen = PairObjective(TrainingConfig(num_negatives=0)), message_graph(board)
    objective.loss(model, seen, *train_pairs(board), torch.Generator()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_held_out_edges_are_not_read(architecture, board, sizes):
    model, users = build(architecture, board, sizes), torch.arange(board["user"].num_nodes)
    with torch.no_grad():
        masked = VectorScores(*model.eval().encode(board))
    assert torch.equal(masked(users), score_of(model, board)(users))


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_similarity_is_cosine_or_dot(architecture, similarity, board, sizes):
    model = build(architecture, board, sizes, similarity=similarity).eval()
    lengths = model.encode(message_graph(board)).user.norm(dim=1)
    is_one = torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5)
    assert is_one == (similarity == "cosine")


def test_a_graph_of_another_size_is_refused(architecture, board, sizes):
    model = create_model({"architecture": architecture, **sizes(board), "num_users": 7})
    with pytest.raises(ValueError, match="num_users is 7, but the graph has 24 users; set num_users to 24"):
        model.check_graph(board)


def test_dropout_is_for_training_only(architecture, board, sizes):
    model, seen = build(architecture, board, sizes, dropout=0.5), message_graph(board)
    model.eval()
    assert torch.equal(model.encode(seen).song, model.encode(seen).song)
    model.train()
    assert not torch.equal(model.encode(seen).song, model.encode(seen).song)
