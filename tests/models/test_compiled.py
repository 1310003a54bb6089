"""How loops are compiled and shared out: what is written out operation by operation stays so, whoever compiles it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.compiled import OPTIONS, balanced, exact, inner


def tiny_after_huge(x: Any) -> Any:
    """0 for 1 in float32, which is lost in 1e8; 1 once the sum may be put in another order."""
    return (x + np.float32(1e8)) - np.float32(1e8)


def first_called_by_a_fast_loop(function: Callable[[Any], Any]) -> float:
    @numba.njit(**OPTIONS)
    def loop(values: Any) -> Any:
        for n in range(len(values)):
            values[n] = function(values[n])

    values = np.ones(16, dtype=np.float32)
    loop(values)
    return float(values[0])


def test_operations_of_an_exact_function_stay_as_written_in_a_loop_that_may_reorder_its_own() -> None:
    assert first_called_by_a_fast_loop(exact(tiny_after_huge)) == 0


def test_operations_of_an_inner_function_may_be_reordered() -> None:
    """Else the test above would pass whatever `exact` does."""
    assert first_called_by_a_fast_loop(inner(tiny_after_huge)) == 1


@given(st.lists(st.integers(0, 9)), st.integers(1, 8))
def test_parts_cover_the_work(cost: list[int], parts: int) -> None:
    bounds = balanced(np.array(cost, dtype=np.int64), parts)
    assert len(bounds) <= parts + 1
    assert (bounds[0], bounds[-1]) == (0, len(cost))
    assert (np.diff(bounds) > 0).all()
