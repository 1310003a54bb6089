"""A run that is stopped or killed loses no finished epoch."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from flows.command_line import command
from flows.train import train
from tasks.options import RUN_OPTIONS

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]
OPTIONS = ("--preset", "tiny", "--model", "lightgcn", "--patience", "1000", "--set", "model.embedding_dim=8")
EPOCHS = 100
BUSY_MACHINE = 60
"""Seconds until a test gives up; a run that is stopped ends in about three on an idle machine."""

Start = Callable[..., "Started"]


def heed_interrupts() -> None:
    """Whoever starts the tests in the background of a shell has them ignore SIGINT, and all that they start too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Started:
    """A run of ``flows.train`` in a process group of its own, and what it has said so far."""

    def __init__(self, said: Path, environment: dict[str, str], epochs: int) -> None:
        self.said = said
        command = [sys.executable, "-m", "flows.train", *OPTIONS, "--epochs", str(epochs)]
        with said.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=heed_interrupts,
            )

    @property
    def text(self) -> str:
        return self.said.read_text(encoding="utf-8")

    @property
    def epochs(self) -> list[int]:
        return [int(epoch) for epoch in re.findall(r"^epoch (\d+) of", self.text, re.MULTILINE)]

    def wait_for_epoch(self, epoch: int) -> None:
        ends = time.monotonic() + 90
        while epoch not in self.epochs:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < ends, self.text
            time.sleep(0.02)

    def end(self) -> None:
        """End whatever is left of the group, also a server that the run started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait(timeout=10)


@pytest.fixture
def start(tmp_path: Path, home: Path) -> Iterator[Start]:
    """Start a run in this process's home, or in another one."""
    runs: list[Started] = []

    def start_one(epochs: int, api: str | None = None, **environment: str) -> Started:
        variables = {**os.environ, "NO_COLOR": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", **environment}
        variables |= {"PREFECT_API_URL": api} if api else {}
        runs.append(Started(tmp_path / f"said-{len(runs)}", variables, epochs))
        return runs[-1]

    yield start_one
    for run in runs:
        run.end()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_ends_soon_with_a_sentence_and_a_checkpoint(
    start: Start, home: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    # Ctrl-C reaches a run at a terminal, which has started a server itself; SIGTERM the run of a worker
    run = start(epochs=100_000, api=prefect_api if number == signal.SIGTERM else None)
    run.wait_for_epoch(2)
    run.process.send_signal(number)
    assert run.process.wait(timeout=BUSY_MACHINE) == code
    assert "Traceback" not in run.text
    *before, last = run.text.strip().splitlines()
    assert last == "Stopped. Finished stages and epochs are kept; the same command goes on from there."
    assert before[-1].startswith("epoch "), run.text
    assert [path for path in (home / "artifacts" / "training").rglob("*") if path.is_file()]


def weights(home: Path) -> str:
    (found,) = (home / "artifacts" / "store" / "train").glob("*/model.safetensors")
    return sha256(found.read_bytes()).hexdigest()


def test_a_killed_run_goes_on_at_the_next_epoch_and_ends_with_the_same_weights(
    start: Start, home: Path, tmp_path: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = start(epochs=EPOCHS, api=prefect_api)
    killed.wait_for_epoch(3)
    os.killpg(killed.process.pid, signal.SIGKILL)
    killed.process.wait(timeout=10)
    last = killed.epochs[-1]
    assert last < EPOCHS

    again = start(epochs=EPOCHS, api=prefect_api)
    assert again.process.wait(timeout=120) == 0, again.text
    assert again.epochs[0] in (last + 1, last + 2)  # the kill may fall between a checkpoint and its line
    assert again.epochs[-1] == EPOCHS

    other = tmp_path / "other"
    monkeypatch.setenv("SONGGRAPH_HOME", str(other))
    command(train, RUN_OPTIONS)([*OPTIONS, "--epochs", str(EPOCHS)], standalone_mode=False)
    assert weights(other) == weights(home)
