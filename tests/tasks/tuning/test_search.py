"""tasks/tuning/search.py: the workers of a search are started, watched, replaced if killed, and ended with it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from data.errors import InputError
from data.machine import cores
from tasks.tuning import search
from tasks.tuning.search import Worker, start_worker, threads_of_a_worker
from tasks.tuning.study import KILLED, SearchStudy

MakeStudy = Callable[..., SearchStudy]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Worker]:
    """All workers that the search starts."""
    workers: list[Worker] = []

    def start(*arguments: object) -> Worker:
        workers.append(start_worker(*arguments))
        return workers[-1]

    monkeypatch.setattr(search, "start_worker", start)
    return workers


@pytest.fixture
def in_place_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let workers run a line of shell."""

    def run(line: str) -> None:
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(script))

    return run


def test_cores_are_divided_among_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_of_a_worker(1) == cores()
    assert threads_of_a_worker(10 * cores()) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads_of_a_worker(1) == 1


@pytest.mark.slow
def test_several_workers_run_the_trials_and_each_is_reported(
    make_study: MakeStudy, caplog: pytest.LogCaptureFixture
) -> None:
    study = make_study(trials=5)
    with caplog.at_level(logging.INFO):
        search._run_workers(study, 2)
    assert [(result.number, result.state) for result in study.results()] == [
        (number, "complete") for number in range(5)
    ]
    assert "search     0 of 5 trials are finished; 2 at once" in caplog.text
    for result in study.results():
        assert f"trial {result.number:<4d} recall@5 {result.value:.4f} (" in caplog.text
    assert "(5 of 5)" in caplog.text


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_its_trial_alone(
    make_study: MakeStudy, started: list[Worker], caplog: pytest.LogCaptureFixture
) -> None:
    study = make_study(trials=3, num_epochs=10)

    def kill_in_trial_1() -> None:
        while not list((study.folder / "trials").glob("1/checkpoint-*.pt")):
            time.sleep(0.01)
        os.kill(started[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_in_trial_1, daemon=True)
    killer.start()
    with caplog.at_level(logging.INFO):
        search._run_workers(study, 1)
    killer.join()
    assert len(started) == 2
    assert [(result.number, result.state) for result in study.results()] == [
        (0, "complete"), (1, "failed"), (2, "complete"),
    ]  # fmt: skip
    assert KILLED in " ".join(caplog.text.split())


@pytest.mark.slow
def test_a_start_whose_worker_is_killed_ends_the_search(make_study: MakeStudy, started: list[Worker]) -> None:
    study = make_study(num_epochs=100_000)

    def kill_in_the_start() -> None:
        while not list((study.folder / "trials").glob("0/checkpoint-*.pt")):
            time.sleep(0.01)
        os.kill(started[0].pid, signal.SIGKILL)

    threading.Thread(target=kill_in_the_start, daemon=True).start()
    with pytest.raises(InputError, match="killed; it may have needed too much memory"):
        search._run_workers(study, 1)
    assert all(worker.poll() is not None for worker in started)


@pytest.mark.parametrize("line", ["echo 'TypeError: no number' >&2; exit 1", "echo 'TypeError: no number'; kill -9 $$"])
def test_a_worker_that_breaks_shows_why(
    make_study: MakeStudy, in_place_of_workers: Callable[[str], None], line: str
) -> None:
    study = make_study()
    in_place_of_workers(line)
    with pytest.raises(RuntimeError, match=r"(?s)A worker of the search broke.*TypeError: no number"):
        search._run_workers(study, 1)


def test_whatever_ends_the_search_ends_its_workers(
    make_study: MakeStudy,
    started: list[Worker],
    in_place_of_workers: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = make_study()
    in_place_of_workers("exec sleep 100")

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        search._run_workers(study, 2)
    assert [worker.returncode for worker in started] == [-signal.SIGKILL, -signal.SIGKILL]


def test_a_search_waits_until_the_workers_of_a_killed_one_are_gone(tmp_path: Path) -> None:
    gone: list[float] = []
    held = threading.Event()

    def old_worker() -> None:
        with FileLock(tmp_path / "worker-3.lock"):
            held.set()
            time.sleep(0.3)
            gone.append(time.monotonic())

    threading.Thread(target=old_worker).start()
    assert held.wait(10)
    with search._alone(tmp_path):
        assert gone


def test_a_search_runs_once_at_a_time(tmp_path: Path) -> None:
    with (
        search._alone(tmp_path),
        pytest.raises(InputError, match="This search is running already"),
        search._alone(tmp_path),
    ):
        pass
