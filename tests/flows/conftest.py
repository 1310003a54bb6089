"""One Prefect server for all tests of flows, and a home of its own for each test: artifacts, graph and registry."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import prefect.settings
import pytest
from filelock import FileLock

from data.synthetic.log import SyntheticConfig, write_log
from flows.quiet import leave_quietly

CHECKOUT = Path(__file__).resolve().parents[2]

SMALL_MODEL = {"model": {"architecture": "lightgcn", "embedding_dim": 8}, "baselines": "none"}

NOT_OURS = ("MLFLOW_TRACKING_URI", "SONGGRAPH_EVENTS", "SONGGRAPH_BENCH_DATA")
"""Variables of the person who runs the tests that would change what the tests do."""


SERVER = 'server=$1; shift; "$@" & child=$!; while kill -0 "$server" 2>/dev/null; do sleep 1; done; kill $child'
"""Shell: run a command for as long as another process lives."""


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that all workers share; flows called in this process use it.

    The first worker that needs the server starts it. It ends with the process that the workers belong to.
    """
    worker = "PYTEST_XDIST_WORKER" in os.environ
    shared = tmp_path_factory.getbasetemp().parent if worker else tmp_path_factory.getbasetemp()
    with FileLock(shared / "prefect.lock"):
        address = shared / "prefect-address"
        if not address.exists():
            address.write_text(start_server(shared / "prefect", os.getppid() if worker else os.getpid()))
    prefect_home = tmp_path_factory.mktemp("prefect")
    elsewhere = {
        prefect.settings.PREFECT_API_URL: address.read_text(),
        prefect.settings.PREFECT_HOME: prefect_home,
        prefect.settings.PREFECT_RESULTS_LOCAL_STORAGE_PATH: prefect_home / "storage",
        prefect.settings.PREFECT_SERVER_ANALYTICS_ENABLED: False,
    }
    leave_quietly()
    with prefect.settings.temporary_settings(elsewhere):
        yield address.read_text()


def start_server(home: Path, for_as_long_as: int) -> str:
    """Start a server without schedules on a free port of this machine, and return its address once it answers."""
    home.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-services", "--host", "127.0.0.1"]
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with (home / "server.log").open("w") as log:
        subprocess.Popen(
            ["sh", "-c", SERVER, "sh", str(for_as_long_as), *command, "--port", port],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}/api"
    for _ in range(480):
        with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
            return address
        time.sleep(0.25)
    raise AssertionError(f"{address} does not answer:\n{(home / 'server.log').read_text()}")


@pytest.fixture
def home(tmp_path: Path, empty_registry: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project root, used by this process and by those that it starts."""
    return make_home(tmp_path, empty_registry, monkeypatch)


def make_home(root: Path, empty_registry: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = root / "home"
    (home / "artifacts" / "mlflow").mkdir(parents=True)
    shutil.copyfile(empty_registry, home / "artifacts" / "mlflow" / "mlflow.db")
    live_in(root, monkeypatch)
    return home


def live_in(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NOT_OURS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SONGGRAPH_HOME", str(root / "home"))
    monkeypatch.setenv("PREFECT_HOME", str(root / "prefect"))
    monkeypatch.setenv("PREFECT_RESULTS_LOCAL_STORAGE_PATH", str(root / "prefect" / "storage"))


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


@dataclass(frozen=True)
class Trained:
    """A home after one run of the main flow on a log of 2,000 events, for one epoch, in this process."""

    root: Path
    first: Run

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def log(self) -> Path:
        return next((self.root / "logs").iterdir())

    def run(self, **overrides: Any) -> Run:
        """Run again; arguments are overrides of the config."""
        return run_train(self.log, **overrides)

    @property
    def asked(self) -> dict[str, Any]:
        """Arguments of the run; plain values."""
        return asked(self.log)


def run_train(log: Path, **overrides: Any) -> Run:
    from flows.train import train

    return Run.of(train(**asked(log, **overrides), return_state=True))


def asked(log: Path, **overrides: Any) -> dict[str, Any]:
    return {"events": str(log), "num_epochs": 1, "overrides": SMALL_MODEL | overrides}


@pytest.fixture(scope="session")
def trained_once(
    prefect_api: str, empty_registry: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Trained, Path]]:
    """The home, and a copy of it that nobody changes."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        # no connection outlives the file that it was opened on: tests put the home back as it was
        patch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        make_home(root, empty_registry, patch)
        (log,) = write_log(SyntheticConfig(preset="tiny"), root / "logs")
        trained = Trained(root, run_train(log))
        shutil.copytree(root, root.with_name("as-it-was"))
        yield trained, root.with_name("as-it-was")


@pytest.fixture
def trained(trained_once: tuple[Trained, Path], monkeypatch: pytest.MonkeyPatch) -> Trained:
    """A home in which the main flow ran once: to damage, and to run in again."""
    found, as_it_was = trained_once
    shutil.rmtree(found.root)
    shutil.copytree(as_it_was, found.root)
    live_in(found.root, monkeypatch)
    return found


@pytest.fixture
def songgraph(prefect_api: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python with the given arguments in the checkout, against the session's server."""

    def run(*arguments: str, cwd: Path = CHECKOUT, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "PREFECT_API_URL": prefect_api, "DO_NOT_TRACK": "1", "NO_COLOR": "1", **environment}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=120)

    return run
