"""The benchmark of the attention, without its seconds: what it prints, and that it finds a graph without the data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/attention.py", *arguments]
    variables = {**os.environ, **environment}
    return subprocess.run(command, cwd=CHECKOUT, env=variables, capture_output=True, text=True, timeout=600)


def test_the_help_names_the_options() -> None:
    ended = run("--help")
    assert ended.returncode == 0, ended.stderr
    assert "--rounds" in ended.stdout
    assert "--part" not in ended.stdout


@pytest.mark.slow
def test_without_data_a_made_up_log_is_measured_in_a_narrow_table(tmp_path: Path) -> None:
    ended = run("--rounds", "1", SONGGRAPH_BENCH_DATA=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    machine, commit, graph, *rest = ended.stdout.splitlines()
    assert machine.startswith("machine  ")
    assert commit.startswith("commit   ")
    assert graph.startswith("graph    made up, train: ")
    assert all(len(line) <= 80 for line in rest)
    rows = ("ours, fused", "ours, MessagePassing", "PyG HeteroConv(GATConv)")
    assert all(any(line.startswith(row) for line in rest) for row in rows)
