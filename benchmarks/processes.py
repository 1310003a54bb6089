"""Run a command in its own process and project root, and measure it."""

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
"""Bytes per unit of ``ru_maxrss``."""


class ProcessFailed(SystemExit):
    """A command failed. ``exit_code`` is its exit status or minus the signal; ``stderr`` is its error output."""

    def __init__(self, command: Sequence[str], exit_code: int, stderr: str) -> None:
        super().__init__(f"{' '.join(command)} failed:\n{stderr}")
        self.exit_code, self.stderr = exit_code, stderr


@dataclass(frozen=True)
class ProcessMeasurement:
    """Wall-clock seconds, peak resident memory in bytes, and error output of one process."""

    seconds: float
    peak_bytes: int
    stderr: str


def environment(home: Path) -> dict[str, str]:
    """Return variables for a run that writes only under ``home``, and finds the benchmark data as this process does."""
    data = CHECKOUT / os.environ.get("SONGGRAPH_BENCH_DATA", "../shared/data")
    own = {
        "SONGGRAPH_HOME": str(home),
        "SONGGRAPH_BENCH_DATA": str(data.resolve()),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # on a busy machine
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    removed = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_RESULTS_LOCAL_STORAGE_PATH")
    return {name: value for name, value in os.environ.items() if name not in removed} | own


def measure(arguments: Sequence[str], variables: Mapping[str, str]) -> ProcessMeasurement:
    """Run Python with ``arguments`` in the checkout.

    Raises:
        ProcessFailed: the command failed. If nobody catches it, the benchmark ends with the command's error output.
    """
    started = time.perf_counter()
    command = [sys.executable, *arguments]
    path = Path(variables["SONGGRAPH_HOME"]) / "stderr.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as errors:
        process = subprocess.Popen(command, cwd=CHECKOUT, env=variables, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # Ctrl-C: end the process too
            process.kill()
            raise
    seconds = time.perf_counter() - started
    stderr = path.read_text(encoding="utf-8", errors="replace")
    if exit_code := os.waitstatus_to_exitcode(status):
        raise ProcessFailed(command, exit_code, stderr)
    return ProcessMeasurement(seconds, usage.ru_maxrss * KIB_OR_BYTES, stderr)
