"""One process at a time on an MLflow server, which has no lock: processes take turns, as at a bakery's counter.

Lamport, "A new solution of Dijkstra's concurrent programming problem" (1974): each draws a ticket, then a number above
all that are drawn, and waits for the tickets in front. Tickets are runs of the experiment ``<name>/turns`` and are
deleted by their owners; no clock is compared between machines.
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
from typing import TYPE_CHECKING, Self

from data.errors import InputError

if TYPE_CHECKING:
    from registry.backend.client import RegistryClient, Run

LEASE_SECONDS = 900.0
"""After this long in front, seen by the one who waits, a ticket counts as left behind by a dead process."""
POLL_SECONDS = 0.2

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Ticket:
    """A place in the queue; without a number while its process is still drawing one."""

    run_id: str
    number: int | None
    host: str
    pid: int

    def is_before(self, other: _Ticket) -> bool:
        """Whether this one goes first; one that is drawing has to be waited for."""
        return self.number is None or (self.number, self.run_id) < (other.number or 0, other.run_id)

    def is_dead(self) -> bool:
        """Whether it is known to be left behind: its process was on this machine and is gone."""
        return self.host == _here() and not _alive(self.pid)


class Turn:
    """The right to change one model on a server.

    A ticket of a dead process on this machine is taken away at once, one of another machine after ``LEASE_SECONDS``.
    A process that was only slow finds that its turn is over before it moves anything, see ``check``.
    """

    def __init__(self, store: RegistryClient, name: str) -> None:
        self._store, self._name = store, name
        self._experiment = f"{name}/turns"
        self._mine: _Ticket | None = None
        self._front, self._since = "", 0.0

    @contextmanager
    def taken(self, wait: bool = True) -> Iterator[Self]:
        """Wait for the turn and give it back at the end.

        Raises:
            InputError: it is another process's turn, and ``wait`` is false.
        """
        self._mine = self._draw()
        try:
            while ahead := self._ahead(self._mine):
                if not self._take_away_dead(ahead):
                    if not wait:
                        raise busy(self._store.address)
                    time.sleep(POLL_SECONDS)
            yield self
        finally:
            with suppress(InputError):  # taken away meanwhile, or the server is gone: others wait for the lease
                self._store.forget_run(self._mine.run_id)

    def check(self) -> None:
        """Refuse to go on where another process took the turn away.

        Raises:
            InputError: it did.
        """
        if not any(self._is_mine(ticket) for ticket in self._tickets()):
            raise InputError(
                f"Another process took over the work on '{self._name}', since this one was not done after "
                f"{LEASE_SECONDS:.0f} seconds; run the command again."
            )

    def _draw(self) -> _Ticket:
        tags = {"host": _here(), "pid": str(os.getpid())}
        run = self._store.open_run(self._experiment, "turn", tags)
        number = 1 + max((ticket.number or 0 for ticket in self._tickets()), default=0)
        self._store.tag_run(run.run_id, {"number": str(number)})
        return _Ticket(run.run_id, number, _here(), os.getpid())

    def _tickets(self) -> list[_Ticket]:
        return [_ticket(run) for run in self._store.runs(self._experiment)]

    def _ahead(self, mine: _Ticket) -> list[_Ticket]:
        return [ticket for ticket in self._tickets() if ticket.run_id != mine.run_id and ticket.is_before(mine)]

    def _is_mine(self, ticket: _Ticket) -> bool:
        return self._mine is not None and ticket.run_id == self._mine.run_id

    def _take_away_dead(self, ahead: list[_Ticket]) -> bool:
        """Delete the tickets in front that dead processes left; whether there were any."""
        front = min(ahead, key=lambda ticket: (ticket.number or 0, ticket.run_id))
        if front.run_id != self._front:
            self._front, self._since = front.run_id, time.monotonic()
        overdue = time.monotonic() - self._since > LEASE_SECONDS
        dead = [ticket for ticket in ahead if ticket.is_dead() or (overdue and ticket is front)]
        for ticket in dead:
            logger.warning("A process on %s that changed '%s' is dead; its turn is over.", ticket.host, self._name)
            with suppress(InputError):  # another one that waits was faster
                self._store.forget_run(ticket.run_id)
        return bool(dead)


def _ticket(run: Run) -> _Ticket:
    number = int(run.tags["number"]) if "number" in run.tags else None
    return _Ticket(run.run_id, number, run.tags["host"], int(run.tags["pid"]))


def busy(address: str) -> InputError:
    """What to say where another process is at work and one does not want to wait."""
    return InputError(f"Another process is changing the registry at {address}; try again when it is done.")


def _here() -> str:
    """This machine, and on Linux this container: process ids mean something only inside it."""
    with suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    return socket.gethostname()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
