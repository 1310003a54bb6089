from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import evaluation.statistics.intervals as intervals
from data.errors import InputError
from evaluation.statistics.intervals import (
    bootstrap_mean,
    bootstrap_means,
    centred_interval,
    paired_difference,
    paired_differences,
    user_resamples,
)

VALUES = arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1))


@given(VALUES, st.integers(0, 2**32))
def test_an_interval_holds_its_mean_and_lies_within_the_values(values: np.ndarray, seed: int) -> None:
    found = bootstrap_mean(values, seed, samples=200)
    assert found.mean == np.mean(values)
    assert values.min() - 1e-12 <= found.low <= found.high <= values.max() + 1e-12
    assert found == bootstrap_mean(values, seed, samples=200)


def test_equals_resampling_in_a_loop() -> None:
    values = np.random.default_rng(1).random(50)
    generator = np.random.default_rng(7)
    means = [np.mean([values[i] for i in generator.integers(0, 50, size=50)]) for _ in range(300)]
    found = bootstrap_mean(values, seed=7, samples=300)
    assert (found.low, found.high) == pytest.approx((np.quantile(means, 0.025), np.quantile(means, 0.975)), abs=1e-12)


def test_memory_is_bounded_without_changing_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(100)
    at_once = bootstrap_mean(values, seed=3)
    monkeypatch.setattr(intervals, "DRAWS_AT_ONCE", 250)
    found = bootstrap_mean(values, seed=3)
    assert (found.low, found.high) == pytest.approx((at_once.low, at_once.high), abs=1e-12)


def test_ninety_five_percent_of_intervals_hold_the_truth() -> None:
    generator = np.random.default_rng(5)
    found = [bootstrap_mean(generator.exponential(size=200), seed) for seed in range(300)]
    assert 0.91 <= np.mean([interval.low <= 1 <= interval.high for interval in found]) <= 0.98


def test_columns_share_the_resamples() -> None:
    values = np.random.default_rng(2).random(30)
    found = bootstrap_means({"a": values, "b": 2 * values}, seed=0)
    assert found["b"].low == pytest.approx(2 * found["a"].low)


def test_a_pair_cancels_what_is_common() -> None:
    users = np.random.default_rng(2).random(500)
    difference = paired_difference(users + 0.01, users, seed=0)
    assert (difference.low, difference.high) == pytest.approx((0.01, 0.01))


def test_paired_columns_are_those_that_both_have() -> None:
    values = np.random.default_rng(4).random((3, 40))
    found = paired_differences({"a": values[0], "b": values[1]}, {"b": values[2], "c": values[0]}, seed=5)
    assert found == {"b": paired_difference(values[1], values[2], seed=5)}


def test_resamples_are_shares_of_the_same_users_for_the_same_seed() -> None:
    shares = np.concatenate(list(user_resamples(7, seed=1, samples=20)))
    assert shares.shape == (20, 7)
    assert shares.sum(axis=1) == pytest.approx(np.ones(20))
    assert (shares * 7 == np.rint(shares * 7)).all()
    assert np.array_equal(shares, np.concatenate(list(user_resamples(7, seed=1, samples=20))))
    assert not np.array_equal(shares, np.concatenate(list(user_resamples(7, seed=2, samples=20))))


def test_a_centred_interval_lies_around_the_estimate_whatever_the_bias() -> None:
    resampled = np.random.default_rng(0).normal(0.3, 0.01, size=5000)
    found = centred_interval(0.5, resampled)
    assert (found.low, found.mean, found.high) == pytest.approx((0.4804, 0.5, 0.5196), abs=1e-3)


def test_other_users_cannot_be_paired() -> None:
    with pytest.raises(InputError, match="needs the same users on both sides, but there are 3 and 2"):
        paired_difference(np.zeros(3), np.zeros(2), seed=0)


def test_no_users_have_no_mean() -> None:
    with pytest.raises(InputError, match="no users to take a mean over"):
        bootstrap_mean(np.zeros(0), seed=0)


def test_a_metric_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(InputError, match="not a finite number"):
        bootstrap_mean([0.5, float("nan")], seed=0)
