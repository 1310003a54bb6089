"""One stage of the pipeline as a Prefect task: look its result up, or compute it, publish it and say why."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from typing import Any, Self, cast

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed
from prefect.task_engine import TaskRunTimeoutError

from data.errors import InputError
from data.project import artifacts_folder
from tasks.cache.artifact import publish_artifact
from tasks.cache.key import KeyParts, in_short, key_of, key_parts, what_changed
from tasks.cache.peak_memory import forget_peak, peak_mib
from tasks.cache.ref import Files, Ref
from tasks.cache.result_store import ResultStore
from tasks.check import check_trainer
from tasks.run_config import RunConfig

logger = logging.getLogger(__name__)

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
NOT_TRANSIENT = {*FULL, *NOT_WRITABLE, errno.ENOENT}

Work = Callable[..., Mapping[str, Any]]
"""What a stage does: ``work(folder, config, **inputs)`` writes files into ``folder`` and returns counts for people."""


@dataclass(frozen=True)
class Stage:
    """A named, versioned piece of work with a cache of its own.

    Prefect's cache is not asked: its key does not see the code that a task calls, and its records outlive the files
    they point to. A stage looks in the store instead and, on a hit, ends in the state ``Cached``.

    Args:
        version: raise it when the glue in ``tasks/`` changes what is written.
        code: entry modules whose source, with all they import, is part of the key.
        valid: a further check of a stored result, for results that live outside the store too.
    """

    name: str
    version: int
    work: Work
    code: tuple[str, ...]
    valid: Callable[[Ref], bool] = lambda ref: True

    @property
    def store(self) -> ResultStore:
        return ResultStore(artifacts_folder() / "store")

    def working(self, work: Work) -> Self:
        """The same stage with its work bound to what is not part of the key, for example where to find files."""
        return replace(self, work=work)

    def parts(self, config: Mapping[str, Any], inputs: Mapping[str, str], code: Iterable[str] = ()) -> KeyParts:
        return key_parts(self.name, self.version, inputs, config, (*self.code, *code))

    def __call__(
        self,
        run: RunConfig,
        config: Mapping[str, Any],
        code: Iterable[str] = (),
        **inputs: Ref | Files | None,
    ) -> Ref:
        """Run the stage as a Prefect task, or whatever else ``executor`` says.

        Args:
            run: the whole run's config; "why it ran" compares with the last run of its name.
            config: the plain values that this stage depends on; all are part of the key.
            code: further entry modules, chosen by the config.
            inputs: results of earlier stages, and files; None for what the run does not ask for, which is left out.
        """
        given = {name: ref for name, ref in inputs.items() if ref is not None}
        parts = self.parts(config, {name: ref.sha256 for name, ref in given.items()}, code)
        return executor.get()(self, run, dict(config), parts, given)

    def look_up(self, parts: KeyParts) -> tuple[Ref | None, str]:
        ref, problem = self.store.look_up(self.name, key_of(parts))
        if ref and not self.valid(ref):
            return None, "what the stored result points to is gone"
        return ref, problem

    def why(self, parts: KeyParts, problem: str, run: str) -> str:
        """Why the stage runs: a problem with the stored result, else what changed since the last run of this name."""
        if problem:
            return problem
        before = self.store.last_parts(self.name, run)
        if not before:
            return "first run"
        return in_short(what_changed(before, parts))


Executor = Callable[[Stage, RunConfig, dict[str, Any], KeyParts, dict[str, Ref | Files]], Ref]


def as_prefect_task(
    stage: Stage, run: RunConfig, config: dict[str, Any], parts: KeyParts, inputs: dict[str, Ref | Files]
) -> Ref:
    """Run the stage as a Prefect task of its own name, within the run's time limit."""
    seconds = run.timeout_minutes * 60 if run.timeout_minutes else None
    named = run_stage.with_options(name=stage.name, task_run_name=stage.name, timeout_seconds=seconds)
    state: State[Any] = named(stage, run, config, parts, inputs, return_state=True)
    return Ref(**cast(dict[str, Any], state.result()))


executor: ContextVar[Executor] = ContextVar("executor", default=as_prefect_task)
"""What a call of a stage does: run it, or (``tasks.explain``) only look it up."""


def is_transient(task: Any, task_run: TaskRun, state: State) -> bool:
    """Whether a retry can help: input and output errors, except a full or read-only disk and missing rights.

    A stage that passed its own time limit raises a ``TimeoutError`` too, but would only do so again.
    """
    error = state.data if isinstance(state.data, BaseException) else state.result(raise_on_failure=False)
    if isinstance(error, TaskRunTimeoutError):
        return False
    return isinstance(error, OSError) and error.errno not in NOT_TRANSIENT


@task(
    cache_policy=NO_CACHE,
    persist_result=True,
    result_serializer="json",
    retries=2,
    retry_delay_seconds=[2, 10],
    retry_condition_fn=is_transient,
)
def run_stage(
    stage: Stage, run: RunConfig, config: dict[str, Any], parts: KeyParts, inputs: dict[str, Ref | Files]
) -> State:
    """Give the stored result, or compute and publish it. Ends in the state Cached or Completed."""
    key = key_of(parts)
    try:
        with stage.store.locked(stage.name, key):
            ref, problem = stage.look_up(parts)
            ref = _used(stage, run, parts, ref) if ref else _compute(stage, run, config, parts, inputs, problem)
    except OSError as error:
        raise _in_a_sentence(error, stage.name) from error
    logger.info("%-10s %s", stage.name, "cached" if ref.cached else "done")
    publish_artifact(stage.name, key, ref)
    name = "Cached" if ref.cached else "Completed"
    return Completed(name=name, message=ref.why or "Nothing changed.", data=asdict(ref))


def _used(stage: Stage, run: RunConfig, parts: KeyParts, ref: Ref) -> Ref:
    stage.store.remember(stage.name, key_of(parts), run.remembered_as, parts)
    return ref.told(cached=True, why="")


def _compute(
    stage: Stage, run: RunConfig, config: dict[str, Any], parts: KeyParts, inputs: dict[str, Ref | Files], problem: str
) -> Ref:
    check_trainer(run)
    key, why = key_of(parts), stage.why(parts, problem, run.remembered_as)
    logger.info("%-10s runs: %s", stage.name, why)
    started = time.time()
    forget_peak()
    with stage.store.scratch(stage.name, key) as scratch:
        counts = stage.work(scratch, config, **{name: ref.value for name, ref in inputs.items()})
        manifest = {
            "version": stage.version,
            "key_parts": parts,
            "config": config,
            "inputs": {name: asdict(ref) for name, ref in inputs.items()},
            "counts": dict(counts),
            "why": why,
            "started": started,
            "seconds": round(time.time() - started, 3),
            "peak_mib": peak_mib(),
        }
        return stage.store.publish(scratch, stage.name, key, run.remembered_as, manifest).told(cached=False, why=why)


def _in_a_sentence(error: OSError, stage: str) -> OSError | InputError:
    if error.errno not in FULL | NOT_WRITABLE:
        return error
    where = f" '{error.filename}'" if error.filename else ""
    return InputError(
        f"The stage {stage} could not write{where}: {error.strerror}. Nothing was published; "
        "free some space or make the folder writable, and run the same command again."
    )
