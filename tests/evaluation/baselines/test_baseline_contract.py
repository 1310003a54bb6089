"""What every baseline must do: find what is missing, read train listens only, and not depend on the batch."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import LISTENS, MASKS
from evaluation.baselines.choices import BASELINES, CHOICES, create_baseline
from evaluation.parts import part_edges
from evaluation.ranking import rank

PERSONAL = [name for name in BASELINES if "popularity" not in name]

every_baseline = pytest.mark.parametrize("name", BASELINES)


def scores_of(name: str, graph: HeteroData, users: Tensor | None = None) -> Tensor:
    """The scores (U, S) of all users, or of those given."""
    return create_baseline(name).fit(graph)(torch.arange(graph["user"].num_nodes) if users is None else users)


@pytest.mark.parametrize("name", PERSONAL)
def test_the_withheld_song_is_found(name: str, checkerboard: HeteroData) -> None:
    users = torch.arange(checkerboard["user"].num_nodes)
    two_tastes = {"factors": 2} if name == "ials" else {}  # more factors learn the gap by heart
    found = rank(create_baseline(name, two_tastes).fit(checkerboard), users, part_edges(checkerboard, "train"), 1)
    assert torch.equal(found.items[:, 0], users)


@every_baseline
def test_the_same_graph_gives_the_same_scores(name: str, tiny_training_graph: HeteroData) -> None:
    assert torch.equal(scores_of(name, tiny_training_graph), scores_of(name, tiny_training_graph))


@every_baseline
def test_the_batch_changes_nothing(name: str, tiny_training_graph: HeteroData) -> None:
    score = create_baseline(name).fit(tiny_training_graph)
    users = torch.arange(tiny_training_graph["user"].num_nodes)
    alone = [score(users[row : row + 1]) for row in range(len(users))]
    assert torch.equal(score(users), torch.cat(alone))
    assert torch.equal(score(users.flip(0)).flip(0), torch.cat(alone))


@every_baseline
def test_held_out_listens_are_not_read(name: str, tiny_training_graph: HeteroData) -> None:
    assert torch.equal(scores_of(name, tiny_training_graph), scores_of(name, without_held_out(tiny_training_graph)))
    assert torch.equal(scores_of(name, tiny_training_graph), scores_of(name, with_other_held_out(tiny_training_graph)))


def without_held_out(graph: HeteroData) -> HeteroData:
    """Only the train edges, and no masks."""
    changed, train = copy.deepcopy(graph), graph[LISTENS].train_mask
    store = changed[LISTENS]
    store.edge_index = store.edge_index[:, train]
    for name in ("plays", "skips", "completion", "first_played", "last_played", "weight"):
        store[name] = store[name][train]
    for mask in MASKS:
        del store[mask]
    return changed


def with_other_held_out(graph: HeteroData) -> HeteroData:
    """Other songs, and wild attributes, on the edges that are not for training."""
    changed = copy.deepcopy(graph)
    store, held_out = changed[LISTENS], ~graph[LISTENS].train_mask
    store.edge_index[1, held_out] = (store.edge_index[1, held_out] + 1) % graph["song"].num_nodes
    for name in ("plays", "last_played", "weight"):
        store[name][held_out] = 99_999
    store.last_played[held_out] += int(store.last_played.max())
    return changed


@every_baseline
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 2)])
def test_a_tiny_log_gives_finite_scores_or_a_reason(
    name: str, shape: tuple[int, int], make_graph_of: Callable[..., HeteroData]
) -> None:
    heard = np.zeros(shape, dtype=bool)
    heard[0, 0] = True
    graph = make_graph_of(heard)
    if create_baseline(name).why_not(graph):
        assert name in ("recent-popularity", "ease")
    else:
        assert torch.isfinite(scores_of(name, graph)).all()
        assert scores_of(name, graph).shape == shape


@every_baseline
def test_listens_without_weight_and_users_without_listens_give_finite_scores(
    name: str, tiny_training_graph: HeteroData
) -> None:
    graph = copy.deepcopy(tiny_training_graph)
    store = graph[LISTENS]
    store.weight[store.edge_index[1] == 3] = 0.0
    store.weight[store.edge_index[0] == 2] = 0.0
    store.train_mask[store.edge_index[0] == 5] = False
    assert torch.isfinite(scores_of(name, graph)).all()


def test_popularity_is_always_there_and_all_is_all() -> None:
    assert all("popularity" in names for names in CHOICES.values())
    assert CHOICES["none"] == ("popularity",)
    assert set(CHOICES["none"]) < set(CHOICES["fast"]) < set(CHOICES["all"]) == set(BASELINES)


def test_an_unknown_baseline_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"There is no baseline 'iasl'\. Did you mean 'ials'\?"):
        create_baseline("iasl")


def test_an_unknown_parameter_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"the baseline ials has the unknown key 'factor'\. Did you mean 'factors'\?"):
        create_baseline("ials", {"factor": 8})
