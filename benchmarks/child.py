"""Runs one command in a project root of its own, and measures it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from machine import CHECKOUT

KIB_OR_BYTES = 1 if sys.platform == "darwin" else 1024
"""Unit of ``ru_maxrss``."""


class ChildFailed(SystemExit):
    """A command that did not end well: how it ended (its exit status, or minus a signal), and what it said."""

    def __init__(self, command: Sequence[str], ended: int, said: str) -> None:
        super().__init__(f"{' '.join(command)} failed:\n{said}")
        self.ended, self.said = ended, said


@dataclass(frozen=True)
class Measured:
    """Wall seconds and peak resident memory in bytes of one process, and what it wrote to standard error."""

    seconds: float
    peak_bytes: int
    said: str


def environment(home: Path) -> dict[str, str]:
    """Variables for a run that writes under ``home`` only and reads the benchmark data where this process would."""
    data = CHECKOUT / os.environ.get("SONGGRAPH_BENCH_DATA", "../shared/data")
    ours = {
        "SONGGRAPH_HOME": str(home),
        "SONGGRAPH_BENCH_DATA": str(data.resolve()),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # on a busy machine
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    away = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_RESULTS_LOCAL_STORAGE_PATH")
    return {name: value for name, value in os.environ.items() if name not in away} | ours


def measure(arguments: Sequence[str], variables: Mapping[str, str]) -> Measured:
    """Run Python with ``arguments`` in the checkout.

    Raises:
        ChildFailed: it fails; where nobody catches it, the benchmark ends with what the command said.
    """
    started = time.perf_counter()
    command = [sys.executable, *arguments]
    said = Path(variables["SONGGRAPH_HOME"]) / "said.txt"
    said.parent.mkdir(parents=True, exist_ok=True)
    with said.open("wb") as errors:
        process = subprocess.Popen(command, cwd=CHECKOUT, env=variables, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # Ctrl-C: nobody is left who would want what it does
            process.kill()
            raise
    seconds = time.perf_counter() - started
    text = said.read_text(encoding="utf-8", errors="replace")
    if ended := os.waitstatus_to_exitcode(status):
        raise ChildFailed(command, ended, text)
    return Measured(seconds, usage.ru_maxrss * KIB_OR_BYTES, text)
