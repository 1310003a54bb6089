"""without_test of data/training_graph.py: the test listens are gone, and nothing else."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.graph import LISTENS, REV_LISTENS, graph_digest, message_graph
from data.split import SplitConfig
from data.training_graph import split_graph, without_test

TEMPORAL = SplitConfig(
    strategy="temporal",
    val_from=date(1970, 1, 1) + timedelta(20_035),
    test_from=date(1970, 1, 1) + timedelta(20_042),
)


def pairs(graph, mask: str) -> set[tuple[int, int]]:
    return set(map(tuple, graph[LISTENS].edge_index[:, graph[LISTENS][mask]].T.tolist()))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), test_ratio=st.sampled_from([0.0, 0.1, 0.3]))
def test_no_test_pair_is_left_and_the_others_stay(make_training_graph, seed: int, test_ratio: float) -> None:
    graph = make_training_graph(seed=seed, test_ratio=test_ratio)
    kept = without_test(graph)
    assert not kept[LISTENS].test_mask.any()
    assert all(pairs(kept, mask) == pairs(graph, mask) for mask in ("train_mask", "val_mask"))
    left = set(map(tuple, kept[LISTENS].edge_index.T.tolist()))
    assert not left & pairs(graph, "test_mask")
    assert set(map(tuple, kept[REV_LISTENS].edge_index.flip(0).T.tolist())) == left
    assert graph_digest(message_graph(kept)) == graph_digest(message_graph(graph))
    kept.validate()


def test_the_graph_that_was_given_is_not_changed(make_training_graph) -> None:
    graph = make_training_graph()
    before = graph_digest(graph)
    without_test(graph)
    assert graph_digest(graph) == before


def test_pairs_of_new_users_and_re_listens_of_the_test_days_are_gone_too(make_graph, make_listens) -> None:
    graph = split_graph(make_graph(), TEMPORAL, make_listens())
    assert graph[LISTENS].relisten_test_index.size(1) > 0
    kept = without_test(graph)
    for name in ("new_user_test_index", "relisten_test_index"):
        assert kept[LISTENS][name].shape == (2, 0)
    for name in ("new_user_val_index", "relisten_val_index"):
        assert torch.equal(kept[LISTENS][name], graph[LISTENS][name])


def test_a_graph_without_masks_is_refused(tiny_graph) -> None:
    with pytest.raises(InputError, match="no train, val and test masks; split it before a search"):
        without_test(tiny_graph)


def test_a_split_without_validation_listens_is_refused(make_training_graph) -> None:
    with pytest.raises(InputError, match=r"leaves no validation listens.*raise training.val_ratio"):
        without_test(make_training_graph(val_ratio=0.0))
