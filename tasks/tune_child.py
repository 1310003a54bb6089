"""Starts the processes of trials, answers them, and ends them with their parent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.machine import cores, threads
from tasks.cache.result_store import write_json
from tasks.tune_trial import JOB, Hear, Job, Outcome

SHOWN_LINES = 20
"""Of what a process that broke said last."""


class Stopped(Exception):  # noqa: N818  (no error: somebody asked for it)
    """The search was ended while the trial ran."""


class Children:
    """The trials that are running.

    Args:
        threads: of torch in each of them.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._running: set[subprocess.Popen[str]] = set()
        self._lock, self._ended = threading.Lock(), False

    def run(self, job: Job, hear: Hear) -> Outcome:
        """Run ``job`` in a process of its own and wait for it; ``hear`` is asked after each epoch.

        Raises:
            Stopped: ``end`` was called meanwhile.
            RuntimeError: the process broke; its last lines are in the message.
        """
        folder = Path(job.folder)
        write_json(folder / JOB, asdict(job))
        with (folder / "log.txt").open("a+", encoding="utf-8") as log:
            process = self._start(folder, log)
            outcome = self._outcome(process, hear)
            if outcome:
                return outcome
            if self._ended:
                raise Stopped
            return _broken(process.returncode, folder)

    def end(self) -> None:
        """End those that run; none starts after this."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.kill()

    def _start(self, folder: Path, log: Any) -> subprocess.Popen[str]:
        threads = str(self.threads)
        with self._lock:
            if self._ended:
                raise Stopped
            process = subprocess.Popen(
                [sys.executable, "-m", "tasks.tune_trial", str(folder)],
                env={**os.environ, "OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the parent, which ends its children itself
            )
            self._running.add(process)
            return process

    def _outcome(self, process: subprocess.Popen[str], hear: Hear) -> Outcome | None:
        """What the process says, once it has ended; what ``hear`` raises ends it."""
        try:
            return _converse(process, hear)
        except BaseException:
            process.kill()
            raise
        finally:
            process.communicate()
            with self._lock:
                self._running.discard(process)


def _converse(process: subprocess.Popen[str], hear: Hear) -> Outcome | None:
    """Answer until the process says what came of it; None where it ends without a word."""
    assert process.stdout is not None
    assert process.stdin is not None
    for line in process.stdout:
        said = json.loads(line)
        if "outcome" in said:
            return Outcome(**said["outcome"])
        stop = hear([(int(epoch), float(value)) for epoch, value in said["curve"]])
        try:
            print("stop" if stop else "go", file=process.stdin, flush=True)
        except BrokenPipeError:
            return None
    return None


def _broken(code: int, folder: Path) -> Outcome:
    """A process that a signal ended says nothing about the code; any other end without an outcome is a bug."""
    if code < 0:
        return Outcome(
            "", None, refused=f"its process was killed by signal {-code}; it may have needed too much memory"
        )
    last = (folder / "log.txt").read_text(encoding="utf-8").splitlines()[-SHOWN_LINES:]
    raise RuntimeError("\n".join([f"A trial broke ({folder}):", *last]))


def threads_of_a_trial(jobs: int) -> int:
    """The cores divided among the trials that run at once, or fewer where OMP_NUM_THREADS says so."""
    return max(1, min(threads(), cores() // jobs))


def default_jobs() -> int:
    return max(1, cores() // 2)
