"""Starts Flower in an environment of its own, and ends it, whatever happens to the training."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.project import checkout, project_root
from trainers.federated.shared_folder import Answer, Ask, Exchange, Job, as_line

if TYPE_CHECKING:
    import trainers.federated.flower_server  # noqa: F401  (what the process runs: so it counts as part of a run's code)

ENVIRONMENT = ".venv-federated"
RUN = "from trainers.federated.flower_server import main; main()"
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "PYTHONUNBUFFERED": "1"}
"""Nothing is told to anybody outside, and a log that is read after a crash holds its last line."""

POLL, PATIENCE = 0.005, 20.0
"""Seconds between two looks for an answer; seconds that Flower has to end by itself."""


def flower_python() -> Path:
    """The Python of Flower's environment.

    Raises:
        InputError: when there is none.
    """
    path = (checkout() or project_root()) / ENVIRONMENT / "bin" / "python"
    if not path.exists():
        raise InputError(
            f"The trainer 'federated' runs Flower, whose packages do not go together with Prefect's, in an environment "
            f"of its own, and {ENVIRONMENT} is not there; make it with `make federated`."
        )
    return path


class FlowerProcess:
    """A federation in a process group of its own, with a folder of its own that is deleted at the end.

    Args:
        job: what to train.
        clients: each client's graph and its users' vectors (G, D).
        keep_log_in: where Flower's log goes if it fails.

    Attributes:
        disks: the clients' disks.
    """

    def __init__(self, job: Job, clients: Sequence[tuple[HeteroData, Tensor]], keep_log_in: Path) -> None:
        python, self.keep_log_in = flower_python(), keep_log_in
        folder = Path(mkdtemp(prefix="songgraph-"))
        try:
            self.exchange = Exchange.start(folder, job, clients)
            self.process = _started(python, self.exchange)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.disks = self.exchange.disks(len(clients))

    def ask(self, ask: Ask, shared: dict[str, Tensor]) -> tuple[Answer, dict[str, Tensor]]:
        """Run an epoch and wait for it: what it came to, and the shared parameters after it.

        Raises:
            InputError: with the reason, when Flower or a client cannot go on.
        """
        self.exchange.write_asked(shared)
        with suppress(BrokenPipeError):  # it has ended, which is seen below
            assert self.process.stdin is not None
            self.process.stdin.write(as_line(ask).encode())
            self.process.stdin.flush()
        while (answer := self.exchange.answer()) is None:
            self._require_alive()
            time.sleep(POLL)
        return answer

    def close(self) -> None:
        """End Flower, at once if it does not end by itself, and delete the folder."""
        try:
            with suppress(OSError, subprocess.TimeoutExpired):
                self.process.communicate(timeout=PATIENCE)  # the end of its input
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            shutil.rmtree(self.exchange.folder, ignore_errors=True)

    def _require_alive(self) -> None:
        if self.exchange.failed.exists():
            reason = self.exchange.failed.read_text(encoding="utf-8")
        elif self.process.poll() is not None and self.exchange.answer() is None:
            reason = f"Flower's process ended with code {self.process.returncode}"
        else:
            return
        raise InputError(f"{reason.rstrip('.')}; Flower's log is kept in {self._kept_log()}.")

    def _kept_log(self) -> Path:
        self.keep_log_in.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(self.exchange.log, self.keep_log_in / "flower.log"))


def _started(python: Path, exchange: Exchange) -> subprocess.Popen[bytes]:
    path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    with exchange.log.open("wb") as log:
        return subprocess.Popen(
            [str(python), "-c", RUN, str(exchange.folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **QUIET, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        )
