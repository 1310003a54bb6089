"""Logarithm and exponential as the compiled loops have them, against numpy in double precision."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.kernels.fast_math import GREATEST, exp, log

whenever_compiled = settings(deadline=None)


@numba.njit(error_model="numpy")
def logs(values: np.ndarray, out: np.ndarray) -> None:
    for n in range(len(values)):
        out[n] = log(values[n])


@numba.njit(error_model="numpy")
def exps(values: np.ndarray, out: np.ndarray) -> None:
    for n in range(len(values)):
        out[n] = exp(values[n])


def computed(loop: object, values: np.ndarray) -> np.ndarray:
    out = np.empty(len(values), dtype=np.float32)
    loop(values.astype(np.float32), out)  # type: ignore[operator]
    return out


def units_off(found: np.ndarray, exact: np.ndarray) -> float:
    """The largest error, in units of the last place of a float32."""
    return float((np.abs(found - exact) / np.spacing(np.abs(exact).astype(np.float32))).max())


@whenever_compiled
@given(st.lists(st.floats(2.0**-126, float(GREATEST), width=32), min_size=1, max_size=50))
def test_logarithms_are_right_to_one_unit_in_the_last_place(values: list[float]) -> None:
    assert units_off(computed(logs, np.array(values)), np.log(np.array(values))) <= 1


@whenever_compiled
@given(st.lists(st.floats(-87, 88, width=32), min_size=1, max_size=50))
def test_exponentials_are_right_to_one_unit_in_the_last_place(values: list[float]) -> None:
    assert units_off(computed(exps, np.array(values)), np.exp(np.array(values))) <= 1


def test_what_has_no_logarithm_in_numbers_comes_back() -> None:
    found = computed(logs, np.array([1.0, np.inf, np.nan]))
    assert found[:2].tolist() == [0.0, np.inf]
    assert np.isnan(found[2])


@pytest.mark.parametrize("loop", [logs, exps])
def test_a_number_has_the_same_bits_wherever_it_stands(loop: object) -> None:
    values = np.random.default_rng(0).uniform(0.1, 20, 67).astype(np.float32)
    together = computed(loop, values)
    assert all(computed(loop, values[n : n + 1])[0] == together[n] for n in range(67))
