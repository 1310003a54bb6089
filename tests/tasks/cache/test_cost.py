"""The peak of a stage is its own, not that of an earlier one."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tasks.cache.cost import peak_mib, start_measuring

MIB = 2**20


def test_the_peak_counts_what_was_taken_and_given_back() -> None:
    start_measuring()
    before = peak_mib()
    np.ones(256 * MIB, dtype=np.int8)
    assert peak_mib() >= before + 200


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can forget a peak")
def test_a_new_measurement_forgets_the_old_peak() -> None:
    np.ones(256 * MIB, dtype=np.int8)
    high = peak_mib()
    start_measuring()
    assert peak_mib() <= high - 200
