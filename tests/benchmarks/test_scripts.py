"""The benchmarks start, say what they do, and name where they ran."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **environment}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=CHECKOUT, env=variables, capture_output=True, text=True, timeout=600)


OPTIONS = {
    "cached_run": "--config",
    "comparison": "--rows",
    "gate": "--retrains",
    "ablation": "--folder",
    "ranking": "--config",
    "trainer_claims": "--claims",
}


@pytest.mark.parametrize(("script", "option"), OPTIONS.items())
def test_the_help_names_the_options(script: str, option: str) -> None:
    ended = run(f"benchmarks/{script}.py", "--help")
    assert ended.returncode == 0, ended.stderr
    assert option in ended.stdout


def test_too_few_retrains_are_refused() -> None:
    ended = run("benchmarks/gate.py", "--retrains", "3")
    assert ended.returncode == 2
    assert "--retrains is 3; at least 7 are needed" in ended.stderr


@pytest.mark.parametrize("script", ["comparison", "ablation", "ranking"])
def test_a_config_that_is_not_there_is_named(script: str, tmp_path: Path) -> None:
    folder = ["--folder", str(tmp_path)] if script == "ablation" else []
    ended = run(f"benchmarks/{script}.py", "--config", "configs/nothing.toml", *folder)
    assert ended.returncode == 1
    assert "configs/nothing.toml" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_the_ablation_trains_every_variant_once_and_goes_on_where_it_was(tmp_path: Path) -> None:
    command = ["benchmarks/ablation.py", "--config", "configs/synthetic.toml", "--folder", str(tmp_path)]
    first, again = (run(*command, "--epochs", "1", "--seeds", "1") for _ in range(2))
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    table = first.stdout[first.stdout.index("variant ") :]
    assert table == again.stdout[again.stdout.index("variant ") :]
    assert first.stdout.count("training ") == len(table.splitlines()) - 2
    assert "training " not in again.stdout
