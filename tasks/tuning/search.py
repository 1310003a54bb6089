"""Runs a search of hyper-parameters: starts the workers, reports their trials, and ends the workers with itself."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from data.errors import InputError
from data.machine import cores, threads
from data.project import artifacts_folder
from tasks.cache.key import KeyParts, in_short, key_of, key_parts, what_changed
from tasks.cache.ref import Ref
from tasks.cache.result_store import write_json
from tasks.check import chosen_modules
from tasks.run_config import RunConfig
from tasks.stages.train import train_config
from tasks.stages.validation import VALIDATION_GRAPH
from tasks.stages.warm_start import KEY
from tasks.tuning.space import SearchSpace, search_space
from tasks.tuning.study import MOST_DRAWS, SearchStudy, TrialResult, require_optuna
from tasks.tuning.worker import SPEC

logger = logging.getLogger(__name__)

VERSION = 2
"""Raise it if a trial computes something else for the same config."""
KEY_DIGITS = 8
LINE_WIDTH = 80
SECONDS_BETWEEN_LOOKS = 0.3
LAST_LINES = 20
"""Lines of a broken worker's log in the error."""

SEARCHED_TABLES = {"name", "trainer", "num_epochs", "model", "training", "split", "evaluation", "tune"}
"""Parts of the run's config that a worker reads."""

Worker = subprocess.Popen[bytes]


def refuse_search(run: RunConfig) -> SearchSpace:
    """Return what the run's search varies.

    Raises:
        InputError: Optuna is not installed, nothing can be chosen on validation with this trainer, or a key of
            ``tune`` is not allowed.
    """
    from trainers.factory import trains_on_everything

    require_optuna()
    space = search_space(run)
    if KEY in run.training:
        raise InputError(
            "A search compares trainings that start alike, from random weights; remove training.warm_start and use it "
            "in the run that trains with what the search finds."
        )
    if trains_on_everything(run.trainer):
        raise InputError(
            f"The trainer '{run.trainer}' trains on all listens, so nothing is left to choose on; "
            "search with 'advanced', and train with the keys that it finds."
        )
    return space


def search(space: SearchSpace, graph: Ref, jobs: int | None = None) -> SearchStudy:
    """Run the trials that are still missing; a search that was killed goes on.

    Args:
        space: what ``refuse_search`` returned for the run.
        graph: the result of the stage ``validation``.
        jobs: number of trials at once; None means half the number of cores.

    Raises:
        InputError: the same search runs elsewhere, or the config as it is cannot be trained.
    """
    run, parts = space.run, _key_parts(space, graph)
    tables = run.model_dump(mode="json", include=SEARCHED_TABLES)
    searches = artifacts_folder() / "tune" / run.name
    folder = searches / key_of(parts)[:KEY_DIGITS]
    with _alone(folder):
        _say_what_is_new(searches / "last.json", parts)
        write_json(folder / SPEC, {"run": tables, "graph": str(graph.value / VALIDATION_GRAPH)})
        study = SearchStudy(folder, space)
        study.prepare()
        _run_workers(study, jobs or max(1, cores() // 2))
    return study


def threads_of_a_worker(jobs: int) -> int:
    """Return the threads of a worker: the cores divided by ``jobs``, or OMP_NUM_THREADS if that is fewer."""
    return max(1, min(threads(), cores() // jobs))


def start_worker(folder: Path, number: int, jobs: int) -> Worker:
    """Start one of ``jobs`` workers. It ends by itself when this process ends, because that closes the pipe to it."""
    num_threads = str(threads_of_a_worker(jobs))
    with _log_of_worker(folder, number).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tasks.tuning.worker", str(folder), str(number)],
            env={**os.environ, "OMP_NUM_THREADS": num_threads, "NUMBA_NUM_THREADS": num_threads},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C goes to this process alone, which ends the workers itself
        )


def _run_workers(study: SearchStudy, jobs: int) -> None:
    """Keep the workers running until each of them finds no trial left; end them if anything goes wrong."""
    reported = {result.number for result in study.results()}
    logger.info("search     %d of %d trials are finished; %d at once", len(reported), study.num_trials, jobs)
    workers: dict[int, Worker] = {}
    try:
        for number in range(jobs):
            workers[number] = start_worker(study.folder, number, jobs)
        while workers:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for number, code in [(number, worker.poll()) for number, worker in workers.items()]:
                if code == 0:
                    del workers[number]
                elif code is not None:
                    _require_killed(study, number, code)
                    workers[number] = start_worker(study.folder, number, jobs)
            _report_new(study, reported)
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    if len(reported) < study.num_trials:
        logger.info("search     ends early: %d draws in a row brought no new values that are allowed", MOST_DRAWS)


def _require_killed(study: SearchStudy, worker: int, code: int) -> None:
    """Count the trial of a worker that a signal ended as failed, for want of memory say; any other end is a bug."""
    if code > 0 or not study.fail_trial_of(worker):
        last = _log_of_worker(study.folder, worker).read_text(encoding="utf-8").splitlines()[-LAST_LINES:]
        raise RuntimeError("\n".join([f"A worker of the search broke ({study.folder}, exit code {code}):", *last]))


def _report_new(study: SearchStudy, reported: set[int]) -> None:
    """Log a line for each trial that has ended and is not yet in ``reported``, and add its number.

    Raises:
        InputError: the config as it is failed: other values will hardly do better, and nothing could be compared.
    """
    for result in study.results():
        if result.number not in reported:
            reported.add(result.number)
            logger.info("%s", _line(result, f"{len(reported)} of {study.num_trials}"))
            if result.is_start and result.state == "failed":
                raise InputError(result.why)


def _line(result: TrialResult, count: str) -> str:
    outcomes = {
        "complete": f"{result.metric} {result.value or 0:.4f}",
        "pruned": f"pruned after epoch {result.epochs}",
        "failed": f"failed, {result.why}",
    }
    changed = ", ".join(f"{name}={value}" for name, value in result.changed.items())
    what = "the config as it is" if result.is_start else changed
    line = f"trial {result.number:<4d} {outcomes[result.state]} ({count}): {what}"
    return textwrap.fill(line, LINE_WIDTH, subsequent_indent=" " * 11, break_long_words=False)


def _log_of_worker(folder: Path, number: int) -> Path:
    return folder / f"worker-{number}.log"


def _key_parts(space: SearchSpace, graph: Ref) -> KeyParts:
    """Return what makes two searches the same: their trials are comparable, and their values are from one space."""
    run, spaces = space.run, {key.name: repr(key.space) for key in space.keys}
    config = {**train_config(run), "num_epochs": run.tune.num_epochs or run.num_epochs, "searched": spaces}
    return key_parts("tune", VERSION, {"graph": graph.sha256}, config, ("trainers.factory", *chosen_modules(run)))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the search's lock, and wait until no worker of a search that was killed is left.

    Raises:
        InputError: the search runs already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            for lock in folder.glob("worker-*.lock"):
                with FileLock(lock):
                    pass
            yield
    except Timeout:
        raise InputError(f"This search is running already (its folder is {folder}); wait for it or stop it.") from None


def _say_what_is_new(last: Path, parts: KeyParts) -> None:
    """Log what differs from the last search of this name, if its trials do not count here; remember this search."""
    before = json.loads(last.read_text(encoding="utf-8")) if last.exists() else parts
    if before != parts:
        logger.info("search     a new one: %s", in_short(what_changed(before, parts)))
    write_json(last, parts)
