from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.exact_products import quantize_songs, quantize_users


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 64, 300]), st.sampled_from([1e-30, 1e-3, 1.0, 1e6]))
def test_a_dot_product_has_no_rounding_error(seed: int, dim: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    user = (scale * generator.standard_normal((2, dim))).astype(np.float32)
    song = generator.standard_normal((3, dim)).astype(np.float32)
    users, songs = quantize_users(user), quantize_songs(song)
    for i, row in enumerate(users @ songs.T):
        for j, value in enumerate(row):
            products = (Fraction(a) * Fraction(b) for a, b in zip(users[i].tolist(), songs[j].tolist(), strict=True))
            assert Fraction(float(value)) == sum(products)
    shuffled = generator.permutation(dim)
    assert np.array_equal(users[:, shuffled] @ songs[:, shuffled].T, users @ songs.T)


@pytest.mark.parametrize("dim", [1, 32, 64])
def test_entries_move_by_less_than_float32_distinguishes_at_the_largest(dim: int) -> None:
    matrix = np.random.default_rng(0).standard_normal((40, dim)).astype(np.float32)
    assert np.abs(quantize_songs(matrix) - matrix).max() <= np.abs(matrix).max() * 2.0**-22
    assert (np.abs(quantize_users(matrix) - matrix).max(axis=1) <= np.abs(matrix).max(axis=1) * 2.0**-22).all()


def test_zero_rows_stay_zero() -> None:
    assert not quantize_users(np.zeros((2, 4), dtype=np.float32)).any()
    assert not quantize_songs(np.zeros((2, 4), dtype=np.float32)).any()
