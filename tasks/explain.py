"""Says what a run would do, before it runs: ``python -m tasks.explain --config configs/synthetic.toml``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data.errors import InputError
from tasks.cache.ref import Files, Ref
from tasks.cache.stage import Stage
from tasks.check import refuse_early
from tasks.options import RUN_OPTIONS, application, overrides, print_error, read_options
from tasks.pipeline import pipeline, stages_of
from tasks.run import Run, present
from tasks.run_config import RunConfig, load_run_config


@dataclass(frozen=True)
class Verdict:
    """What will happen to one stage, and why."""

    stage: str
    verdict: str
    why: str = ""


class _WillRun(Exception):  # noqa: N818  (no error: the answer was found)
    """Ends the look-up: what comes after depends on what is in a result that is not there yet."""


@dataclass(frozen=True)
class _Pending(Ref):
    """The result of a stage that has not run: other stages can wait for it, but nobody can look into it."""

    @property
    def value(self) -> Path:
        raise _WillRun


@dataclass(frozen=True)
class PlannedRun(Run):
    """Looks each stage up and computes nothing.

    Attributes:
        verdicts: one a stage, in order.
    """

    verdicts: list[Verdict] = field(default_factory=list)

    def execute(
        self, stage: Stage, settings: Mapping[str, Any], code: Iterable[str] = (), **inputs: Ref | Files | None
    ) -> Ref:
        """Return the stored result, or one that nobody can look into."""
        given = present(inputs)
        waiting = [ref.stage for ref in given.values() if isinstance(ref, _Pending)]
        if waiting:
            self.verdicts.append(Verdict(stage.name, "depends", f"on {waiting[0]}"))
            return _Pending("", "", stage.name)
        parts = stage.parts(settings, given, code)
        ref, problem = stage.look_up(parts)
        if ref is None:
            why = stage.why(parts, problem, self.config.remembered_as)
            self.verdicts.append(Verdict(stage.name, "will run", why))
            return _Pending("", "", stage.name)
        self.verdicts.append(Verdict(stage.name, "cached"))
        return ref

    def publish(self, publish: Callable[[RunConfig, Ref], None], ref: Ref) -> None:
        """Publish nothing."""


def explain(config: RunConfig) -> list[Verdict]:
    """Return one verdict a stage: cached, will run (and which parts of its key changed), or depends on another."""
    run = PlannedRun(config)
    try:
        list(pipeline(run))
    except _WillRun:
        known = {verdict.stage for verdict in run.verdicts}
        waiting = next(verdict.stage for verdict in reversed(run.verdicts) if verdict.verdict == "will run")
        later = [Verdict(stage, "depends", f"on {waiting}") for stage in stages_of(config) if stage not in known]
        return run.verdicts + later
    return run.verdicts


def main(**given: Any) -> None:
    """Say for each stage: cached, will run and which part of its key changed, or depends on an earlier one."""
    values, settings = read_options(RUN_OPTIONS, given)
    config, events = values.pop("config", None), values.pop("events", None)
    try:
        read = load_run_config(config, overrides(values, settings), events=events)
        refuse_early(read)
        verdicts = explain(read)
    except InputError as error:
        print_error(error, Console(stderr=True))
        raise SystemExit(2) from None
    table = Table("stage", "verdict", "why", box=None, header_style="bold")
    for verdict in verdicts:
        table.add_row(verdict.stage, verdict.verdict, verdict.why)
    Console().print(table)


if __name__ == "__main__":
    application(main, RUN_OPTIONS, main.__doc__ or "")()
