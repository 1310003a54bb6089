from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test

from evaluation.statistics import significance
from evaluation.statistics.significance import holm, sign_flip_p_value


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8))
def test_equals_going_through_all_signs(differences: list[int]) -> None:
    observed = abs(sum(differences))
    signs = product([-1, 1], repeat=len(differences))
    exact = [abs(sum(s * d for s, d in zip(row, differences, strict=True))) >= observed for row in signs]
    assert sign_flip_p_value(differences, seed=0) == pytest.approx(np.mean(exact), abs=0.02)


def test_is_scipys_test_of_paired_samples() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1, size=12)
    theirs = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p_value(differences, seed=1) == pytest.approx(theirs.pvalue, abs=0.01)


def test_no_difference_is_no_evidence() -> None:
    assert sign_flip_p_value(np.zeros(50), seed=0) == 1.0
    assert sign_flip_p_value([0.5, -0.5], seed=0) == 1.0


def test_it_is_never_zero_and_does_not_depend_on_how_much_is_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clear, unclear = np.ones(100), np.random.default_rng(0).normal(0.2, 1, size=64)
    assert sign_flip_p_value(clear, seed=0) == 1 / 10_000
    whole = sign_flip_p_value(unclear, seed=0)
    monkeypatch.setattr(significance, "SIGNS_AT_ONCE", 640)
    assert sign_flip_p_value(unclear, seed=0) == whole


def test_the_limit_for_many_users_is_that_of_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(3).choice([-1.0, -0.1, 0.5], size=3000, p=[0.3, 0.1, 0.6])
    differences -= differences.mean() - 0.025
    limit = sign_flip_p_value(differences, seed=0)
    monkeypatch.setattr(significance, "NORMAL_FROM", 10**9)
    assert limit == pytest.approx(sign_flip_p_value(differences, seed=0), abs=0.015)


def test_chance_alone_is_called_a_difference_one_time_in_twenty() -> None:
    generator = np.random.default_rng(11)
    values = [sign_flip_p_value(generator.normal(size=40), seed, flips=999) for seed in range(400)]
    assert 0.03 <= np.mean(np.array(values) < 0.05) <= 0.075


def test_holm_by_hand() -> None:
    # In order .01, .02, .03: times 3, 2, 1; the last two are raised to what came before.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_rejects_what_stepping_down_rejects(p_values: list[float]) -> None:
    rejected = set()
    for step, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] * (len(p_values) - step) >= 0.05:
            break
        rejected.add(int(index))
    assert {index for index, value in enumerate(holm(p_values)) if value < 0.05} == rejected
