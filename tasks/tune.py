"""A search of hyper-parameters: trials as Prefect tasks, several at once, chosen on validation alone."""

from __future__ import annotations

import json
import logging
import shutil
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed

from data.errors import InputError
from data.project import artifacts_folder
from tasks.cache.key import KeyParts, in_short, key_of, key_parts, what_changed
from tasks.cache.ref import Ref
from tasks.cache.result_store import read_stage_manifest, write_json
from tasks.check import chosen_modules
from tasks.run_config import RunConfig
from tasks.stages.train import train_config
from tasks.stages.warm_start import KEY
from tasks.tune_child import Children, Stopped, default_jobs, threads_of_a_trial
from tasks.tune_graph import VALIDATION_GRAPH
from tasks.tune_space import SearchSpace, search_space
from tasks.tune_study import Candidate, SearchStudy, Tried, require_optuna
from tasks.tune_trial import Hear, Job, Outcome

logger = logging.getLogger(__name__)

VERSION = 1
"""Raise it when a trial computes something else for the same config."""

KEY_DIGITS = 8
LINE_WIDTH = 80

RunTrial = Callable[[Job, Hear], Outcome]


def refuse_search(run: RunConfig) -> SearchSpace:
    """What the run's search varies.

    Raises:
        InputError: Optuna is not installed, nothing can be chosen on validation with this trainer, or the keys to
            search are not what they should be.
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


@task(name="trial", cache_policy=NO_CACHE, persist_result=True, result_serializer="json")
def run_trial(number: int, values: dict[str, Any], work: Callable[[], Tried]) -> dict[str, Any]:
    """A trial as Prefect shows it; what it does is ``work``. Nothing comes of one that was stopped with the search."""
    try:
        return asdict(work())
    except Stopped:
        return {}


def search(space: SearchSpace, graph: Ref, jobs: int | None = None) -> SearchStudy:
    """Run the trials that are not finished yet. A search that was killed goes on, one that is done is given.

    Args:
        space: what ``refuse_search`` gave for the run.
        graph: of ``tasks.tune_graph``.
        jobs: trials at once; half as many as there are cores unless given.

    Raises:
        InputError: the same search is running elsewhere, or the config as it is cannot be trained.
    """
    run, parts = space.run, _parts(space, graph)
    folder = _folder_of_name(run) / key_of(parts)[:KEY_DIGITS]
    with _alone(folder):
        _say_what_is_new(run, parts)
        study = SearchStudy(folder, space, run.tune, _epochs(run), _seed(run))
        at_once = jobs or default_jobs()
        children = Children(threads_of_a_trial(at_once))
        try:
            _Search(graph, folder, study, children.run).run(at_once)
        finally:
            children.end()
    return study


class _Search:
    """A search while it runs."""

    def __init__(self, graph: Ref, folder: Path, study: SearchStudy, run_one: RunTrial) -> None:
        self.run_config, self.graph, self.folder = study.space.run, graph, folder
        self.study, self.run_one = study, run_one
        counts = read_stage_manifest(graph.value)["counts"]
        self.node_counts = {f"num_{kind}s": counts[f"{kind}s"] for kind in ("user", "song", "artist")}
        self.nothing_new = False

    def run(self, jobs: int) -> None:
        """Keep ``jobs`` trials running until all that were asked for are finished, or nothing new is left to try."""
        finished, asked = len(self.study.tried()), self.study.tune.trials
        logger.info("search     %d of %d trials are finished; %d at once", finished, asked, jobs)
        running: list[PrefectFuture[dict[str, Any]]] = []
        while True:
            while len(running) < jobs and (candidate := self._next(len(running))):
                running.append(self._submit(candidate))
            if not running:
                return
            done = next(as_completed(running))
            running.remove(done)
            self._report(Tried(**done.result()))

    def _next(self, running: int) -> Candidate | None:
        if self.nothing_new or self.study.left() <= running:
            return None
        candidate = self.study.next()
        if candidate is None:
            self.nothing_new = True
            logger.info("search     every combination was tried")
        return candidate

    def _submit(self, candidate: Candidate) -> PrefectFuture[dict[str, Any]]:
        named = run_trial.with_options(task_run_name=f"trial-{candidate.number}")
        return named.submit(candidate.number, candidate.values, partial(self._work, candidate))

    def _work(self, candidate: Candidate) -> Tried:
        job = self._job(candidate)
        outcome = self.run_one(job, partial(self.study.hear, candidate))
        if outcome.value is None:
            self._refuse_without_start(candidate, outcome)
        tried = self.study.finish(candidate, outcome)
        shutil.rmtree(job.folder, ignore_errors=True)
        return tried

    def _refuse_without_start(self, candidate: Candidate, outcome: Outcome) -> None:
        """Where not even the config as it is has a value, others will hardly have one, and none could be compared."""
        if candidate.is_start or not any(tried.is_start for tried in self.study.tried()):
            raise InputError(
                outcome.refused
                or f"{outcome.metric} is no number in any epoch of the config as it is; lower lr or see its metrics."
            )

    def _job(self, candidate: Candidate) -> Job:
        folder = self.folder / "trials" / str(candidate.number)
        folder.mkdir(parents=True, exist_ok=True)
        tables = self.study.space.tables(candidate.values)
        curves = artifacts_folder() / "tensorboard" / self.run_config.name
        return Job(
            trainer=self.run_config.trainer,
            model={**tables["model"], **self.node_counts},
            training=tables["training"],
            num_epochs=_epochs(self.run_config),
            graph=str(self.graph.value / VALIDATION_GRAPH),
            folder=str(folder),
            tensorboard=str(curves / f"tune-{self.folder.name}-{candidate.number}"),
        )

    def _report(self, tried: Tried) -> None:
        """Say of a trial what it came to, and what is different in it."""
        count = f"{len(self.study.tried())} of {self.study.tune.trials}"
        changed = self.study.space.changed(tried.values)
        told = ", ".join(f"{name}={value}" for name, value in changed.items())
        what = "the config as it is" if tried.is_start else told or "as the start"
        line = f"trial {tried.number:<4d} {_came_to(tried)} ({count}): {what}"
        logger.info("%s", textwrap.fill(line, LINE_WIDTH, subsequent_indent=" " * 11, break_long_words=False))


def _came_to(tried: Tried) -> str:
    if tried.state == "complete":
        return f"{tried.metric} {tried.value:.4f}"
    return f"pruned after epoch {tried.epochs}" if tried.state == "pruned" else f"failed, {tried.why}"


def _parts(space: SearchSpace, graph: Ref) -> KeyParts:
    """What makes two searches the same: their trials can be compared, and are drawn from the same space."""
    run = space.run
    config = {**train_config(run), "num_epochs": _epochs(run), "searched": space.described()}
    return key_parts("tune", VERSION, {"graph": graph.sha256}, config, ("trainers.factory", *chosen_modules(run)))


def _epochs(run: RunConfig) -> int:
    return run.tune.num_epochs or run.num_epochs


def _seed(run: RunConfig) -> int:
    from trainers.factory import parse_training_config

    return parse_training_config(run.trainer, run.training).seed


def _folder_of_name(run: RunConfig) -> Path:
    return artifacts_folder() / "tune" / run.name


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout:
        raise InputError(f"This search is running already (its folder is {folder}); wait for it or stop it.") from None


def _say_what_is_new(run: RunConfig, parts: KeyParts) -> None:
    """Name what differs from the last search of this name, whose trials do not count here; remember this one."""
    path = _folder_of_name(run) / "last.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else parts
    if before != parts:
        logger.info("search     a new one: %s", in_short(what_changed(before, parts)))
    write_json(path, parts)
