from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics.exposure import exposure, popularity_groups, write_exposure


def test_groups_hold_as_many_listens() -> None:
    listeners = np.array([1, 6, 2, 1, 1, 4, 3, 0])  # 18 listens: 6 | 4 + 3 (of 7) | the rest
    assert popularity_groups(listeners, 3).tolist() == [2, 0, 2, 2, 2, 1, 1, 2]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.sampled_from([1, 3, 10]))
def test_more_popular_songs_are_never_in_a_later_group(counts: list[int], groups: int) -> None:
    listeners = np.array(counts)
    group = popularity_groups(listeners, groups)
    assert ((group >= 0) & (group < groups)).all()
    order = np.argsort(-listeners, kind="stable")
    assert (np.diff(group[order]) >= 0).all()
    for count in set(counts):
        assert len(set(group[listeners == count].tolist())) == 1
    assert (group[listeners == 0] == groups - 1).all()


def test_shares_by_hand(tmp_path: Path) -> None:
    listeners = np.array([6, 4, 3, 2, 1, 1, 1, 0])
    found = exposure(np.array([[0, 1, 7], [0, 2, -1]]), np.array([0, 3, 3, 4]), listeners, 3, "test")
    head, middle, tail = found["groups"]
    assert (head["name"], head["songs"], head["fewest_listeners"], head["most_listeners"]) == ("head", 1, 6, 6)
    assert [head["places"], middle["places"], tail["places"]] == [2 / 5, 2 / 5, 1 / 5]
    assert [head["train_listens"], middle["train_listens"], tail["train_listens"]] == [6 / 18, 7 / 18, 5 / 18]
    assert [head["relevant_listens"], middle["relevant_listens"], tail["relevant_listens"]] == [1 / 4, 0, 3 / 4]
    assert sum(row["songs"] for row in found["tenths"]) == 8
    write_exposure(tmp_path / "exposure.json", found)
    assert json.loads((tmp_path / "exposure.json").read_text()) == found
