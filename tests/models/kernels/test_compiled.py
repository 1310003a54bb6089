"""How loops are compiled and shared out: what is written out operation by operation stays so, whoever compiles it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.kernels.compiled import OPTIONS, balanced_bounds, exact, inner

CHECKOUT = Path(__file__).resolve().parents[3]


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
    bounds = balanced_bounds(np.array(cost, dtype=np.int64), parts)
    assert len(bounds) <= parts + 1
    assert (bounds[0], bounds[-1]) == (0, len(cost))
    assert (np.diff(bounds) > 0).all()


LOOP = """
import numpy as np
from models.kernels.compiled import kernel
from models.kernels.fast_math import exp

@kernel
def run(first, last, out):
    out[0] = exp(out[0])
"""
CALL = "import loop, numpy; out = numpy.ones(1, numpy.float32); loop.run(0, 1, out); print(out[0])"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the packages that hold kernels, whose code a test may change."""
    for name in ("models", "data"):
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def printed(code: str, folder: Path, **variables: str) -> str:
    """What a new process prints."""
    given = {**os.environ, "PYTHONPATH": str(folder), **variables}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_a_change_of_what_kernels_share_reaches_those_that_are_compiled_already(checkout: Path) -> None:
    (checkout / "loop.py").write_text(LOOP)
    assert printed(CALL, checkout) == printed(CALL, checkout) == "2.7182817"
    changed = checkout / "models" / "kernels" / "fast_math.py"
    changed.write_text(changed.read_text().replace("ONE, HALF = np.float32(1.0)", "ONE, HALF = np.float32(2.0)"))
    assert printed(CALL, checkout) == "4.7182817"


SUM = """
import numpy as np
from models.kernels.attention import Edges as Rows, sum_neighbors
one = np.zeros(1, np.uint32)
edges, out = Rows(np.array([0, 1]), np.array([0, 1], np.int32), one, one, one), np.zeros((1, 1, 1))
sum_neighbors(0, 1, edges, np.full((1, 1), 2.0), np.full((1, 1, 1), 3.0), out)
print(out.item())
"""


@pytest.mark.slow
def test_a_type_of_a_kernel_that_has_another_name_now_does_not_spoil_the_cache(checkout: Path) -> None:
    assert printed(SUM, checkout) == "6.0"
    changed = checkout / "models" / "kernels" / "attention.py"
    changed.write_text(re.sub(r"\bEdges\b", "Lines", changed.read_text()))
    assert printed(SUM.replace("Edges", "Lines"), checkout) == "6.0"


GRADIENTS = """
import hashlib
import torch
from torch_geometric.data import HeteroData
from data.graph import LISTENS
from models.gat import DegreeAttention
from models.graph.adjacency import adjacency

torch.manual_seed(0)
graph = HeteroData()
graph["user"].num_nodes = graph["song"].num_nodes = 150
graph[LISTENS].edge_index = (torch.rand(150, 150) < 0.2).nonzero().T
graph[LISTENS].weight = torch.rand(graph[LISTENS].edge_index.shape[1])
layer = DegreeAttention(32, 4)
x = torch.randn(300, 32)
(layer(x, adjacency(graph, x.device)) * torch.randn(300, 32)).sum().backward()
print(hashlib.sha256(b"".join(value.grad.numpy().tobytes() for value in layer.parameters())).hexdigest())
"""


@pytest.mark.slow
def test_the_process_that_compiles_a_kernel_gets_the_same_bits_as_those_that_load_it(tmp_path: Path) -> None:
    digests = [printed(GRADIENTS, CHECKOUT, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    assert digests[0] == digests[1]
