"""One Prefect server for all tests of flows, and a home of its own for each test: artifacts, graph and registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import prefect.settings
import pytest
from prefect.testing.utilities import prefect_test_harness

from data.synthetic.log import SyntheticConfig, write_log
from flows.quiet import leave_quietly

CHECKOUT = Path(__file__).resolve().parents[2]

SMALL_MODEL = {"model": {"architecture": "lightgcn", "embedding_dim": 8}, "baselines": "none"}

NOT_OURS = ("MLFLOW_TRACKING_URI", "SONGGRAPH_EVENTS", "SONGGRAPH_BENCH_DATA")
"""Variables of the person who runs the tests that would change what the tests do."""


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that lives as long as the session; flows called in this process use it."""
    prefect_home = tmp_path_factory.mktemp("prefect")
    elsewhere = {
        prefect.settings.PREFECT_HOME: prefect_home,
        prefect.settings.PREFECT_RESULTS_LOCAL_STORAGE_PATH: prefect_home / "storage",
        prefect.settings.PREFECT_SERVER_ANALYTICS_ENABLED: False,
    }
    leave_quietly()
    with prefect.settings.temporary_settings(elsewhere), prefect_test_harness(server_startup_timeout=120):
        yield prefect.settings.PREFECT_API_URL.value()


@pytest.fixture
def home(tmp_path: Path, empty_registry: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project root, used by this process and by those that it starts."""
    for name in NOT_OURS:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    make_home(home, empty_registry)
    monkeypatch.setenv("SONGGRAPH_HOME", str(home))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_RESULTS_LOCAL_STORAGE_PATH", str(tmp_path / "prefect" / "storage"))
    return home


def make_home(home: Path, empty_registry: Path) -> None:
    (home / "artifacts" / "mlflow").mkdir(parents=True)
    shutil.copyfile(empty_registry, home / "artifacts" / "mlflow" / "mlflow.db")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 2,000 events in one Parquet file."""
    return write_log(SyntheticConfig(preset="tiny"), tmp_path / "logs")[0]


@dataclass(frozen=True)
class Run:
    """How a run of the flow ended: its state, and of each stage that ran, why."""

    state: str
    message: str
    ran: Mapping[str, str]
    folders: Mapping[str, Path]
    counts: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, state: Any) -> Run:
        stages = state.result()["stages"]
        return cls(
            state.name,
            state.message,
            {stage["stage"]: stage["why"] for stage in stages if not stage["cached"]},
            {stage["stage"]: Path(stage["folder"]) for stage in stages},
            {stage["stage"]: stage["counts"] for stage in stages},
        )


@pytest.fixture
def run_train(prefect_api: str, home: Path, log: Path) -> Callable[..., Run]:
    """Run the main flow on the log in this process, for one epoch; arguments are overrides of the config."""
    from flows.train import train

    def run(**overrides: Any) -> Run:
        return Run.of(train(events=str(log), num_epochs=1, overrides=SMALL_MODEL | overrides, return_state=True))

    return run


@pytest.fixture
def songgraph(prefect_api: str, home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python with the given arguments in the checkout, against the session's server."""

    def run(*arguments: str, cwd: Path = CHECKOUT, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "PREFECT_API_URL": prefect_api, "DO_NOT_TRACK": "1", "NO_COLOR": "1", **environment}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=120)

    return run
