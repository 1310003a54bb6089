"""data/weights.py: the confidence of a listen has the unit and the directions it claims."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from data.weights import WeightConfig, listen_weight

plays = st.integers(1, 10_000)
completion = st.floats(0, 1)
age = st.floats(0, 5_000)
half_life = st.floats(0.5, 5_000)


def weight(plays: float, completion: float, age: float, half_life: float) -> float:
    return float(listen_weight([plays], [completion], [age], half_life)[0])


@given(half_life)
def test_one_complete_play_now_weighs_one(half_life):
    assert weight(1, 1.0, 0.0, half_life) == 1.0


@given(plays, completion, age, half_life, st.integers(1, 100), st.floats(0, 1), st.floats(0, 500))
def test_more_plays_more_completion_and_more_recent_never_weigh_less(
    plays, completion, age, half_life, more, share, days
):
    base = weight(plays, completion, age, half_life)
    assert base >= 0
    assert weight(plays + more, completion, age, half_life) >= base
    assert weight(plays, completion + (1 - completion) * share, age, half_life) >= base
    assert weight(plays, completion, age + days, half_life) <= base


def test_a_half_life_halves_what_a_play_counts():
    assert weight(2, 1.0, 30.0, 30.0) == pytest.approx(1.0)
    assert weight(1, 1.0, 1e6, float("inf")) == 1.0


def test_unknown_completion_counts_as_complete():
    assert weight(1, float("nan"), 0, 180) == 1.0


def test_rows_of_a_pair_add_up_before_the_logarithm():
    weights = listen_weight([1, 2, 3], [1, 1, 0.5], [0, 180, 0], 180, starts=np.array([0, 2]))
    assert weights == pytest.approx(np.log2([1 + 1 + 1, 1 + 1.5]))


def test_a_half_life_has_to_be_positive():
    with pytest.raises(InputError, match=r"weights\.half_life_days is 0: input should be greater than 0"):
        WeightConfig.parse({"half_life_days": 0}, "weights")
