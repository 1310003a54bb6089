"""A stage of the pipeline as a Prefect task: finds its stored result, or computes, publishes and explains it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Self

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed
from prefect.task_engine import TaskRunTimeoutError

from data.errors import InputError
from data.project import artifacts_folder
from tasks.cache.artifact import publish_artifact
from tasks.cache.cost import cost_since, start_measuring
from tasks.cache.key import KeyParts, in_short, key_of, key_parts, what_changed
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

    def bind(self, **values: Any) -> Self:
        """Return the stage with values for its work that are no part of the key, for example where to find files."""
        return replace(self, work=partial(self.work, **values))

    def parts(self, config: Mapping[str, Any], inputs: Mapping[str, Ref | Files], code: Iterable[str] = ()) -> KeyParts:
        """Return the parts of the key: the stage, its config, the digests of its inputs, and the code it reaches."""
        digests = {name: ref.sha256 for name, ref in inputs.items()}
        return key_parts(self.name, self.version, digests, config, (*self.code, *code))

    def look_up(self, parts: KeyParts) -> tuple[Ref | None, str]:
        """Return the verified result, or None with what is wrong with the stored one."""
        ref, problem = self.store.look_up(self.name, key_of(parts))
        if ref and not self.valid(ref):
            return None, "what the stored result points to is gone"
        return ref, problem

    def why(self, parts: KeyParts, problem: str, run: str) -> str:
        """Return why the stage runs: a problem with the stored result, or what changed since runs of this name."""
        if problem:
            return problem
        before = self.store.last_parts(self.name, run)
        if not before:
            return "first run"
        return in_short(what_changed(before, parts))


def is_transient(task: Any, task_run: TaskRun, state: State) -> bool:
    """Return whether a retry can help: it can after input and output errors, but not on a full or read-only disk.

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
    stage: Stage, config: RunConfig, settings: dict[str, Any], parts: KeyParts, inputs: dict[str, Ref | Files]
) -> State:
    """Give the stored result, or compute and publish it. Ends in the state Cached or Completed.

    Args:
        config: the run's.
        settings: the plain values that the stage depends on; its work gets them.
        parts: of the stage's key.
        inputs: results of earlier stages, and files.
    """
    key, store = key_of(parts), stage.store
    try:
        with store.locked(stage.name, key):
            ref, problem = stage.look_up(parts)
            if ref:
                store.remember(stage.name, key, config.remembered_as, parts)
                ref = replace(ref, cached=True)
            else:
                check_trainer(config)
                why = stage.why(parts, problem, config.remembered_as)
                logger.info("%-10s runs: %s", stage.name, why)
                started = start_measuring()
                with store.scratch(stage.name, key) as scratch:
                    counts = stage.work(scratch, settings, **{name: given.value for name, given in inputs.items()})
                    manifest = _manifest(stage, settings, parts, inputs) | {"counts": dict(counts), "why": why}
                    ref = store.publish(scratch, stage.name, key, config.remembered_as, manifest | cost_since(started))
                    ref = replace(ref, why=why)
    except OSError as error:
        raise _in_a_sentence(error, stage.name) from error
    logger.info("%-10s %s", stage.name, "cached" if ref.cached else "done")
    publish_artifact(stage.name, key, ref)
    name = "Cached" if ref.cached else "Completed"
    return Completed(name=name, message=ref.why or "Nothing changed.", data=asdict(ref))


def _manifest(
    stage: Stage, settings: Mapping[str, Any], parts: KeyParts, inputs: Mapping[str, Ref | Files]
) -> dict[str, Any]:
    named = {name: asdict(ref) for name, ref in inputs.items()}
    return {"version": stage.version, "key_parts": parts, "config": settings, "inputs": named}


def _in_a_sentence(error: OSError, stage: str) -> OSError | InputError:
    if error.errno not in FULL | NOT_WRITABLE:
        return error
    where = f" '{error.filename}'" if error.filename else ""
    return InputError(
        f"The stage {stage} could not write{where}: {error.strerror}. Nothing was published; "
        "free some space or make the folder writable, and run the same command again."
    )
