"""The lock of a model: one process at a time changes it.

A local registry is locked by a file. An MLflow server has no lock, so processes queue there as at a bakery's counter
(Lamport, "A new solution of Dijkstra's concurrent programming problem", 1974): each writes a request, gives it a number
above all others, and waits for the requests in front. A request is a run of the experiment ``<name>/turns`` and is
deleted by its owner; clocks of two machines are never compared.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from data.errors import InputError
from registry.backend.connection import Connection
from registry.backend.location import busy
from registry.backend.runs import MlflowRun, Runs

LEASE_SECONDS = 900.0
"""Seconds in front of the queue, measured by the process that waits, after which a request counts as left behind."""
POLL_SECONDS = 0.2

logger = logging.getLogger(__name__)


class Lease:
    """The right to change one model, as long as ``locked`` holds it."""

    def check(self) -> None:
        """Raise InputError if another process has taken the lock over; on a local registry none can."""


@contextmanager
def locked(connection: Connection, name: str, wait: bool = True) -> Iterator[Lease]:
    """Let one process at a time change a model.

    Args:
        connection: the registry.
        name: the registered model's name.
        wait: False gives up at once if another process is at work.

    Raises:
        InputError: another process is at work and ``wait`` is false.
    """
    if connection.database is None:
        with ServerLock(connection, name).held(wait) as lease:
            yield lease
        return
    try:
        with FileLock(f"{connection.database}.lock", timeout=-1 if wait else 0):
            yield Lease()
    except Timeout:
        raise busy(connection.address) from None


@dataclass(frozen=True)
class _Request:
    """A place in the queue; it has no number until its process has read the others' numbers."""

    run_id: str
    number: int | None
    host: str
    pid: int

    @classmethod
    def of(cls, run: MlflowRun) -> Self:
        number = int(run.tags["number"]) if "number" in run.tags else None
        return cls(run.run_id, number, run.tags["host"], int(run.tags["pid"]))

    def is_before(self, other: _Request) -> bool:
        """Return if this one goes first; one without a number has to be waited for."""
        return self.number is None or (self.number, self.run_id) < (other.number or 0, other.run_id)

    def is_dead(self) -> bool:
        """Return if its process ran on this machine and has ended."""
        return self.host == _here() and not _is_alive(self.pid)


class ServerLock(Lease):
    """The lock of one model on a server.

    A request of a dead process on this machine is removed at once, one of another machine after ``LEASE_SECONDS``.
    A process that was only slow finds out before it moves anything, see ``check``.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._runs, self._address, self._name = Runs(connection), connection.address, name
        self._experiment = f"{name}/turns"  # the name that processes of earlier releases queue at
        self._mine = ""
        self._front, self._since = "", 0.0

    @contextmanager
    def held(self, wait: bool = True) -> Iterator[Self]:
        """Wait for the lock and release it at the end.

        Raises:
            InputError: another process has it, and ``wait`` is false.
        """
        mine = self._enqueue()
        self._mine = mine.run_id
        try:
            while ahead := [
                other for other in self._requests() if other.run_id != self._mine and other.is_before(mine)
            ]:
                if not self._remove_dead(ahead):
                    if not wait:
                        raise busy(self._address)
                    time.sleep(POLL_SECONDS)
            yield self
        finally:
            with suppress(InputError):  # removed meanwhile, or the server is gone: others wait for the lease to end
                self._runs.delete(self._mine)

    def check(self) -> None:
        """Raise InputError if another process has taken the lock over."""
        if all(request.run_id != self._mine for request in self._requests()):
            raise InputError(
                f"Another process took over the work on '{self._name}', since this one was not done after "
                f"{LEASE_SECONDS:.0f} seconds; run the command again."
            )

    def _enqueue(self) -> _Request:
        tags = {"host": _here(), "pid": str(os.getpid())}
        run = self._runs.open(self._experiment, "lock", tags)
        number = 1 + max((request.number or 0 for request in self._requests()), default=0)
        self._runs.tag(run.run_id, {"number": str(number)})
        return _Request(run.run_id, number, _here(), os.getpid())

    def _requests(self) -> list[_Request]:
        return [_Request.of(run) for run in self._runs.find(self._experiment)]

    def _remove_dead(self, ahead: list[_Request]) -> bool:
        """Delete the requests in front that dead processes left; return if there were any."""
        front = min(ahead, key=lambda request: (request.number or 0, request.run_id))
        if front.run_id != self._front:
            self._front, self._since = front.run_id, time.monotonic()
        overdue = time.monotonic() - self._since > LEASE_SECONDS
        dead = [request for request in ahead if request.is_dead() or (overdue and request is front)]
        for request in dead:
            logger.warning("A process on %s that changed '%s' is dead; its lock is removed.", request.host, self._name)
            with suppress(InputError):  # another one that waits was faster
                self._runs.delete(request.run_id)
        return bool(dead)


def _here() -> str:
    """Return the name of this machine and, on Linux, of this container, inside which a process id is unique."""
    with suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    return socket.gethostname()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
