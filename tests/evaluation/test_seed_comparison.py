"""Intervals over users and seeds: as wide as they say, and equal to resampling by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm as normal
from scipy.stats import t as student

import evaluation.statistics.intervals as intervals
from data.errors import InputError
from evaluation.record import EvaluationRecord, write_per_user
from evaluation.seed_comparison import (
    SeedComparison,
    across_seeds,
    compare_evaluations,
    difference,
    format_difference,
    is_difference,
)
from evaluation.statistics.intervals import Interval, bootstrap_means, paired_difference


def runs_of(
    mean: float, generator: np.random.Generator, seeds: int, users: np.ndarray, between: float, noise: float
) -> list[dict[str, np.ndarray]]:
    """Runs of a configuration whose true mean is known: an effect of each user, of each seed, and of both together."""
    effects = generator.normal(0, between, seeds)
    return [{"m": mean + effect + users + generator.normal(0, noise, len(users))} for effect in effects]


def test_one_seed_leaves_the_bootstrap_over_users() -> None:
    values = {"a": np.random.default_rng(0).random(60), "b": np.random.default_rng(1).random(60)}
    found = across_seeds([values], seed=4)
    for name, interval in bootstrap_means(values, seed=4).items():
        assert (found[name].low, found[name].high) == pytest.approx((interval.low, interval.high), abs=1e-12)
        assert (found[name].mean, found[name].per_seed, found[name].sd) == (interval.mean, (interval.mean,), None)


def test_one_seed_on_both_sides_leaves_the_paired_difference() -> None:
    first, second = np.random.default_rng(0).random((2, 60))
    found, expected = difference([{"m": first}], [{"m": second}], seed=4)["m"], paired_difference(first, second, 4)
    assert vars(found) == pytest.approx(vars(expected), abs=1e-12)


def by_hand(sides: list[np.ndarray], seed: int, samples: int) -> list[float]:
    """Resampled means (or differences of two) of ``sides`` (S, N), one resample and one seed at a time."""
    users = np.random.default_rng(seed)
    seeds = [np.random.default_rng([seed, place + 1]) for place in range(len(sides))]
    errors = [side.mean(axis=1).var(ddof=1) / len(side) for side in sides]
    degrees = sum(errors) ** 2 / sum(error**2 / (len(side) - 1) for error, side in zip(errors, sides, strict=True))
    found = []
    for _ in range(samples):
        chosen = users.integers(0, sides[0].shape[1], size=sides[0].shape[1])
        total = 0.0
        for place, (side, generator) in enumerate(zip(sides, seeds, strict=True)):
            count = len(side)
            of_users = np.mean([run[user] for run in side for user in chosen])
            of_seeds = np.mean([np.mean(side[s]) for s in generator.integers(0, count, size=count)])
            wider = np.sqrt(count / (count - 1)) * student.ppf(0.975, degrees) / normal.ppf(0.975)
            total += (1, -1)[place] * (of_users + wider * (of_seeds - np.mean(side)))
        found.append(total)
    return found


def test_equals_resampling_in_a_loop() -> None:
    side = np.random.default_rng(3).random((4, 25))
    found = across_seeds([{"m": run} for run in side], seed=7, samples=150)["m"]
    assert (found.low, found.high) == pytest.approx(np.quantile(by_hand([side], 7, 150), [0.025, 0.975]))
    assert found.per_seed == tuple(run.mean() for run in side)
    assert found.sd == pytest.approx(np.std([run.mean() for run in side], ddof=1))


def test_a_difference_equals_resampling_in_a_loop() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.random((3, 25)), generator.random((5, 25)) ** 2
    runs = [[{"m": run, f"only {place}": run} for run in side] for place, side in enumerate((first, second))]
    found = difference(*runs, seed=7, samples=150)
    assert list(found) == ["m"]
    assert (found["m"].low, found["m"].high) == pytest.approx(
        np.quantile(by_hand([first, second], 7, 150), [0.025, 0.975])
    )
    assert found["m"].mean == pytest.approx(first.mean() - second.mean())


@pytest.mark.parametrize(
    ("seeds", "between", "noise", "at_least", "at_most"),
    [
        (5, 1.0, 0.1, 0.91, 0.98),  # seeds decide
        (5, 0.1, 1.0, 0.92, 0.99),  # users decide
        (5, 0.0, 1.0, 0.92, 0.995),
        (3, 1.0, 0.1, 0.90, 0.98),
        (10, 0.3, 1.0, 0.91, 0.98),
    ],
)
def test_ninety_five_percent_of_intervals_hold_the_truth(
    seeds: int, between: float, noise: float, at_least: float, at_most: float
) -> None:
    covered = []
    for trial in range(300):
        generator = np.random.default_rng(trial)
        runs = runs_of(0.5, generator, seeds, generator.normal(0, noise, 100), between, noise)
        found = across_seeds(runs, seed=trial, samples=400)["m"]
        covered.append(found.low <= 0.5 <= found.high)
    assert at_least <= np.mean(covered) <= at_most


def test_users_alone_would_not_hold_the_truth() -> None:
    covered = []
    for trial in range(100):
        generator = np.random.default_rng(trial)
        runs = runs_of(0.5, generator, 5, generator.normal(0, 0.1, 100), between=0.1, noise=0.1)
        found = bootstrap_means({"m": np.mean([run["m"] for run in runs], axis=0)}, seed=trial, samples=400)["m"]
        covered.append(found.low <= 0.5 <= found.high)
    assert np.mean(covered) < 0.6


@pytest.mark.parametrize(("gap", "at_least", "at_most"), [(0.0, 0.01, 0.08), (0.3, 0.95, 1.0)])
def test_two_configurations_differ_when_they_do(gap: float, at_least: float, at_most: float) -> None:
    called = []
    for trial in range(200):
        generator = np.random.default_rng(trial)
        users = generator.normal(0, 1, 100)
        sides = [runs_of(mean, generator, 5, users, between=0.1, noise=0.1) for mean in (gap, 0.0)]
        called.append(is_difference(difference(*sides, seed=trial, samples=400)["m"]))
    assert at_least <= np.mean(called) <= at_most


def test_a_pair_cancels_what_is_common_to_its_users() -> None:
    generator = np.random.default_rng(0)
    users = generator.normal(0, 9, 300)
    runs = runs_of(0.2, generator, 5, users, between=0.01, noise=0.0)
    found = difference(runs, [{"m": users}], seed=0)["m"]
    assert 0.15 < found.low < found.high < 0.25


@given(st.integers(1, 4), st.integers(1, 12), st.floats(0.1, 9), st.floats(-5, 5), st.integers(0, 99))
def test_intervals_move_with_their_values(seeds: int, users: int, factor: float, shift: float, seed: int) -> None:
    values = np.random.default_rng(seed).random((seeds, users))
    plain = across_seeds([{"m": run} for run in values], seed, samples=50)["m"]
    moved = across_seeds([{"m": factor * run + shift} for run in values], seed, samples=50)["m"]
    for name in ("mean", "low", "high"):
        assert getattr(moved, name) == pytest.approx(factor * getattr(plain, name) + shift, abs=1e-6)


def test_seeds_that_agree_leave_the_users() -> None:
    values = np.random.default_rng(2).random(50)
    found = across_seeds([{"m": values}] * 5, seed=1)["m"]
    alone = bootstrap_means({"m": values}, seed=1)["m"]
    assert (found.low, found.high, found.sd) == pytest.approx((alone.low, alone.high, 0.0), abs=1e-12)


def test_memory_is_bounded_without_changing_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [{"m": run} for run in np.random.default_rng(0).random((3, 40))]
    at_once = across_seeds(runs, seed=3)["m"]
    monkeypatch.setattr(intervals, "DRAWS_AT_ONCE", 170)
    found = across_seeds(runs, seed=3)["m"]
    assert (found.low, found.high) == pytest.approx((at_once.low, at_once.high), abs=1e-12)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (Interval(0.0123, 0.004, 0.0206), "+0.0123 [+0.0040, +0.0206], a difference"),
        (Interval(-0.0123, -0.0206, -0.004), "-0.0123 [-0.0206, -0.0040], a difference"),
        (Interval(0.0123, -0.004, 0.0286), "+0.0123 [-0.0040, +0.0286], no difference shown"),
        (Interval(0.0, 0.0, 0.0), "+0.0000 [+0.0000, +0.0000], no difference shown"),
    ],
)
def test_a_difference_is_called_one_only_when_its_interval_excludes_zero(interval: Interval, words: str) -> None:
    assert format_difference(interval) == words
    assert is_difference(interval) == words.endswith("], a difference")


def test_other_users_cannot_be_compared() -> None:
    with pytest.raises(InputError) as error:
        difference([{"m": np.zeros(3)}], [{"m": np.zeros(2)}], seed=0)
    assert str(error.value) == (
        "Seeds are compared on the same users, at least one, but there are 2, 3; evaluate again."
    )


def test_a_metric_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="not a finite number, so seeds cannot be compared"):
        across_seeds([{"m": np.array([0.1, np.nan])}], seed=0)


def write_evaluation(
    folder: Path, values: np.ndarray, users: tuple[str, ...] = ("ann", "bob", "cem"), **changed: object
) -> Path:
    """An evaluation of ``values`` (N,), beside a baseline that is half as good on it."""
    folder.mkdir()
    columns = {"recall@10": values, "ndcg@10": values / 2}
    beside = {f"popularity {name}": column / 2 for name, column in columns.items()}
    write_per_user(folder / "per_user.parquet", pa.array(users), columns | beside)
    plain = {name: Interval(float(column.mean()), 0.0, 1.0) for name, column in columns.items()}
    facts = {
        "metric_version": 1, "split_digest": "abc", "part": "test", "seen": "train", "in_sample": False, "k": 10,
        "ks": (10,), "num_users": 3, "eligible_users": 3, "num_songs": 9, "seed": 5, "bootstrap_samples": 1000,
        "metrics": {**plain, "coverage@10": Interval(0.5, 0.4, 0.6)}, "baselines": {"popularity": plain},
    }  # fmt: skip
    EvaluationRecord.model_validate({**facts, **changed}).write(folder / "metrics.json")
    return folder


def test_evaluations_become_a_record_of_seeds(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((3, 3))
    folders = [write_evaluation(tmp_path / str(place), run) for place, run in enumerate(values)]
    found = compare_evaluations(folders, seeds=(7, 8, 9))
    found.write(tmp_path / "seeds.json")
    assert SeedComparison.read(tmp_path / "seeds.json") == found
    told = json.loads((tmp_path / "seeds.json").read_text())
    assert (told["seeds"], told["metric"], told["num_users"]) == ([7, 8, 9], "recall@10", 3)
    assert list(told["metrics"]) == ["recall@10", "ndcg@10"]
    expected = across_seeds([{"recall@10": run} for run in values], seed=5)["recall@10"]
    recall = dict(told["metrics"]["recall@10"])
    assert recall.pop("per_seed") == list(expected.per_seed)
    assert recall == pytest.approx({name: getattr(expected, name) for name in ("mean", "low", "high", "sd")})
    half = told["differences"]["popularity"]["recall@10"]
    assert half == pytest.approx({name: told["metrics"]["recall@10"][name] / 2 for name in ("mean", "low", "high")})


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"split_digest": "other"}, "split_digest"), ({"k": 5}, "k"), ({"users": ("ann", "bob", "dee")}, "users")],
)
def test_evaluations_on_something_else_are_refused(tmp_path: Path, changed: dict[str, object], named: str) -> None:
    values = np.array([0.1, 0.2, 0.3])
    folders = [write_evaluation(tmp_path / "a", values), write_evaluation(tmp_path / "b", values, **changed)]
    with pytest.raises(InputError) as error:
        compare_evaluations(folders, seeds=(0, 1))
    assert str(error.value) == (
        f"The evaluation in {tmp_path / 'b'} differs from the first one in {named}, so their seeds cannot be compared; "
        "evaluate each seed on one split, with the same k and sample of users."
    )


def test_a_record_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"seeds.json is not a readable comparison of seeds; run it with --seeds"):
        SeedComparison.read(tmp_path / "seeds.json")
