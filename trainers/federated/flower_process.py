"""Starts Flower in its own environment, and ends it however the training ends."""

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

from torch import Tensor
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.project import checkout, project_root
from trainers.federated import flower_main
from trainers.federated.shared_folder import EpochRequest, EpochResponse, FederationSpec, SharedFolder

ENVIRONMENT = ".venv-federated"
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "PYTHONUNBUFFERED": "1"}
"""No usage statistics are sent, and a log that is read after a crash holds its last line."""

POLL, PATIENCE = 0.005, 20.0
"""Seconds between two looks for a response; seconds that Flower has to end by itself."""


def flower_python() -> Path:
    """Return the Python of Flower's environment.

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
    """Flower in its own process group, with its own folder, which is deleted at the end.

    Args:
        spec: what to train.
        clients: each client's graph and its users' vectors (G, D).
        keep_log_in: where Flower's log goes if it fails.

    Attributes:
        clients: the clients' folders.
    """

    def __init__(self, spec: FederationSpec, clients: Sequence[tuple[HeteroData, Tensor]], keep_log_in: Path) -> None:
        python, self.keep_log_in = flower_python(), keep_log_in
        folder = Path(mkdtemp(prefix="songgraph-"))
        try:
            self.shared_folder = SharedFolder.create(folder, spec, clients)
            self.process = _started(python, self.shared_folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.clients = self.shared_folder.clients(len(clients))

    def run_epoch(self, request: EpochRequest, shared: dict[str, Tensor]) -> tuple[EpochResponse, dict[str, Tensor]]:
        """Run an epoch and wait for it; return what it came to, and the shared parameters after it.

        Raises:
            InputError: with the reason, when Flower or a client cannot go on.
        """
        self.shared_folder.write_request(shared)
        with suppress(BrokenPipeError):  # it has ended, which is seen below
            assert self.process.stdin is not None
            self.process.stdin.write(request.model_dump_json().encode() + b"\n")
            self.process.stdin.flush()
        while (response := self.shared_folder.read_response()) is None:
            self._require_alive()
            time.sleep(POLL)
        return response

    def close(self) -> None:
        """End Flower, at once if it does not end by itself, and delete the folder."""
        try:
            with suppress(OSError, subprocess.TimeoutExpired):
                self.process.communicate(timeout=PATIENCE)  # the end of its input
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            shutil.rmtree(self.shared_folder.folder, ignore_errors=True)

    def _require_alive(self) -> None:
        if self.shared_folder.failed.exists():
            reason = self.shared_folder.failed.read_text(encoding="utf-8")
        elif self.process.poll() is not None and self.shared_folder.read_response() is None:
            reason = f"Flower's process ended with code {self.process.returncode}"
        else:
            return
        self.keep_log_in.mkdir(parents=True, exist_ok=True)
        log = shutil.copy(self.shared_folder.log, self.keep_log_in / "flower.log")
        raise InputError(f"{reason.rstrip('.')}; Flower's log is kept in {log}.")


def _started(python: Path, shared_folder: SharedFolder) -> subprocess.Popen[bytes]:
    path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    with shared_folder.log.open("wb") as log:
        return subprocess.Popen(
            [str(python), "-m", flower_main.__name__, str(shared_folder.folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **QUIET, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        )
