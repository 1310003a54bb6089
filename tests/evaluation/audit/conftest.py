"""A training graph as the pipeline makes it, with the listens it was made from, for leaks to be planted in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from torch_geometric.data import HeteroData

from data.split import SplitConfig
from data.training_graph import split_graph
from evaluation.audit.auditor import audit_graph
from evaluation.audit.result import Audit, Check

FIRST_DAY = date(1970, 1, 1) + timedelta(20_000)

STRATEGIES = {
    "random": SplitConfig(),
    "leave_last_out": SplitConfig(strategy="leave_last_out"),
    "temporal": SplitConfig(
        strategy="temporal", val_from=FIRST_DAY + timedelta(35), test_from=FIRST_DAY + timedelta(42)
    ),
    "temporal with a gap": SplitConfig(
        strategy="temporal", val_from=FIRST_DAY + timedelta(35), test_from=FIRST_DAY + timedelta(42), gap_days=5
    ),
    "temporal by ratio": SplitConfig(strategy="temporal", val_ratio=0.2, test_ratio=0.2),
    "column": SplitConfig(strategy="column"),
}


class Made(NamedTuple):
    """A training graph, the whole graph it was split from, and the listens of both."""

    graph: HeteroData
    whole: HeteroData
    listens: pa.Table

    def audit(self, with_listens: bool = True) -> Audit:
        return audit_graph(self.graph, self.listens if with_listens else None)

    def leak(self, with_listens: bool = True) -> Check:
        """The one check that does not pass."""
        found = self.audit(with_listens)
        assert not found.passed
        (leak,) = [check for check in found.checks if not check.passed]
        return leak


@pytest.fixture(scope="session")
def make(make_listens: Callable[..., pa.Table], make_graph: Callable[..., HeteroData]) -> Callable[..., Made]:
    """``make("temporal", num_users=90)``: a log, its graph, and the split of it by one of ``STRATEGIES``."""

    def make(strategy: str = "random", **sizes: int) -> Made:
        listens = make_listens(**sizes)
        pair = listens["user"].to_numpy() * 1_000 + listens["song"].to_numpy()
        listens = listens.append_column("split", pa.array(np.array(["train", "train", "valid", "test"])[pair % 4]))
        counts = {name: value for name, value in sizes.items() if name in ("num_users", "num_songs")}
        whole = make_graph(table=listens, **counts)
        return Made(split_graph(whole, STRATEGIES[strategy], listens), whole, listens)

    return make


@pytest.fixture
def made(make: Callable[..., Made]) -> Made:
    return make()
