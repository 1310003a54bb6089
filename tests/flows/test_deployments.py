"""The deployments as their user meets them: a server, a worker that starts elsewhere, runs by hand and by schedule."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]
TINY = {"synthetic": {"preset": "tiny"}, "model": {"architecture": "lightgcn", "embedding_dim": 8}}
LONGEST_WAIT = 300
SERVICE_UNAVAILABLE, BUSY_TRIES = 503, 5
"""Seconds; only a machine that does much else comes near it."""


@dataclass(frozen=True)
class Deployed:
    """A server with a worker and both deployments."""

    root: Path
    api: str
    environment: dict[str, str]

    def prefect(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run Prefect's command line, from the checkout unless told otherwise."""
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        ended = subprocess.run(
            command, cwd=cwd or CHECKOUT, env=self.environment, capture_output=True, text=True, timeout=LONGEST_WAIT
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr + self.said()
        return ended.stdout

    def ask(self, path: str, method: str = "POST", **question: Any) -> Any:
        """Call the server as Prefect's commands do, each of which takes seconds to start."""
        request = urllib.request.Request(
            f"{self.api}/{path}", json.dumps(question).encode(), {"Content-Type": "application/json"}, method=method
        )
        for _ in range(BUSY_TRIES):
            try:
                return self._answer(request)
            except urllib.error.HTTPError as error:
                if error.code != SERVICE_UNAVAILABLE:
                    raise
                time.sleep(2)  # the server's database is busy: Prefect's own client asks again too
        return self._answer(request)

    def _answer(self, request: urllib.request.Request) -> Any:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or "null")

    def find(self, deployment: str) -> Any:
        (found,) = self.ask("deployments/filter", deployments={"name": {"any_": [deployment]}})
        return found

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        return self.ask("flow_runs/filter", deployments={"name": {"any_": [deployment]}})

    def wait_for_run(self, deployment: str, found: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        ends = time.monotonic() + LONGEST_WAIT
        while time.monotonic() < ends:
            for run in filter(found, self.runs(deployment)):
                return run
            time.sleep(0.2)
        raise AssertionError(f"no such run: {self.runs(deployment)}\n{self.said()}")

    def said(self) -> str:
        return "\n".join(path.read_text()[-4_000:] for path in self.root.glob("*.log"))


@contextmanager
def started(command: list[str], log: Path, environment: dict[str, str], cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, all of which is ended afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=15)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(url: str, log: Path) -> None:
    for _ in range(240):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.25)
    raise AssertionError(f"{url} does not answer:\n{log.read_text()}")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    root = tmp_path_factory.mktemp("deployed")
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "SONGGRAPH", "MLFLOW"))
    }
    environment = ours | {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "PREFECT_SERVER_SERVICES_SCHEDULER_DEPLOYMENT_BATCH_SIZE": "10",
        "SONGGRAPH_HOME": str(root / "home"),
    }
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    prefect = [sys.executable, "-m", "prefect"]
    serve = [*prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    work = [*prefect, "worker", "start", "--pool", "songgraph"]
    with started(serve, root / "server.log", environment, elsewhere):
        wait_for(f"{api}/health", root / "server.log")
        here = Deployed(root, api, environment)
        here.ask("work_pools/", name="songgraph", type="process")
        here.prefect("deploy", "--all")
        with started(work, root / "worker.log", environment, elsewhere):
            yield here


def test_a_run_started_from_another_folder_completes_and_leaves_no_pickle(deployed: Deployed) -> None:
    overrides = f"overrides={json.dumps(TINY)}"
    command = ("deployment", "run", "train/advanced", "--watch", "-p", "num_epochs=2", "-p", overrides)
    told = deployed.prefect(*command, cwd=deployed.root / "elsewhere")
    assert "Completed" in told, deployed.said()
    (run,) = (run for run in deployed.runs("advanced") if not run["auto_scheduled"])
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert (deployed.root / "home" / "data" / "graph.pt").exists()
    assert [path for path in deployed.root.rglob("*") if path.is_file() and is_pickle(path)] == []


def is_pickle(path: Path) -> bool:
    """By name, by the first bytes of protocols 2 to 5, or as what Prefect's pickle serializer writes into JSON."""
    start = path.read_bytes()[:200_000]
    return (
        path.suffix in (".pkl", ".pickle")
        or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05")
        or (b'"serializer"' in start and b'"type":"pickle"' in start.replace(b" ", b""))
    )


def test_the_nightly_schedule_is_there_with_its_timezone(deployed: Deployed) -> None:
    scheduled = deployed.wait_for_run("advanced", lambda run: run["auto_scheduled"])
    assert scheduled["created_by"]["type"] == "SCHEDULE"
    (schedule,) = deployed.find("advanced")["schedules"]
    assert schedule["schedule"]["cron"] == "0 2 * * *"
    assert schedule["schedule"]["timezone"] == "Europe/Berlin"


def test_a_schedule_of_seconds_creates_a_run_that_completes(deployed: Deployed) -> None:
    file = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text(encoding="utf-8"))
    often = file["deployments"][1] | {
        "name": "often",
        "schedules": [{"interval": 5, "slug": "often", "active": True}],
        "parameters": {"num_epochs": 1, "overrides": TINY},
    }
    (deployed.root / "often.yaml").write_text(yaml.safe_dump(file | {"deployments": [often]}))
    deployed.prefect("deploy", "--all", "--prefect-file", str(deployed.root / "often.yaml"))
    try:
        done = deployed.wait_for_run("often", lambda run: run["state"]["type"] == "COMPLETED")
    finally:
        deployed.ask(f"deployments/{deployed.find('often')['id']}", method="DELETE")
    assert done["auto_scheduled"]
    assert done["created_by"]["type"] == "SCHEDULE"


def test_a_cancelled_run_ends_soon_and_keeps_its_checkpoint(deployed: Deployed) -> None:
    endless = {"num_epochs": 100_000, "overrides": TINY | {"name": "cancelled"}}
    simple = deployed.find("simple")["id"]
    deployed.ask(f"deployments/{simple}/create_flow_run", parameters=endless, state={"type": "SCHEDULED"})
    checkpoints = deployed.root / "home" / "artifacts" / "training" / "cancelled"

    def training(run: dict[str, Any]) -> bool:
        assert run["state"]["type"] != "FAILED", run["state"]
        return checkpoints.exists() and any(checkpoints.iterdir())

    run = deployed.wait_for_run("simple", training)
    deployed.prefect("flow-run", "cancel", run["id"])
    deployed.wait_for_run("simple", lambda run: run["state"]["type"] == "CANCELLED")
    kept = max(path.stat().st_mtime for path in checkpoints.rglob("*"))
    time.sleep(2)
    assert max(path.stat().st_mtime for path in checkpoints.rglob("*")) == kept
