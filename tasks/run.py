"""A run of the pipeline: its config, and what happens to each stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from prefect.client.schemas.objects import State

from tasks.cache.ref import Files, Ref
from tasks.cache.stage import Stage, run_stage
from tasks.run_config import RunConfig


@dataclass(frozen=True)
class Run:
    """Runs each stage as a Prefect task. A subclass does something else with it: ``tasks.explain`` only looks it up.

    Args:
        config: the run's config.
        registers: whether the model is registered at the end.
    """

    config: RunConfig
    registers: bool = True

    def execute(
        self, stage: Stage, settings: Mapping[str, Any], code: Iterable[str] = (), **inputs: Ref | Files | None
    ) -> Ref:
        """Return the stage's result, stored before or computed now, within the run's time limit.

        Args:
            settings: the plain values that this stage depends on; all are part of the key.
            code: further entry modules, chosen by the config.
            inputs: results of earlier stages, and files; None is left out.
        """
        given = present(inputs)
        minutes = self.config.timeout_minutes
        named = run_stage.with_options(
            name=stage.name, task_run_name=stage.name, timeout_seconds=minutes * 60 if minutes else None
        )
        parts = stage.parts(settings, given, code)
        state: State[Any] = named(stage, self.config, dict(settings), parts, given, return_state=True)
        return Ref(**cast(dict[str, Any], state.result()))

    def publish(self, publish: Callable[[RunConfig, Ref], None], ref: Ref) -> None:
        """Put a copy of a result where people look for it."""
        publish(self.config, ref)


def present(inputs: Mapping[str, Ref | Files | None]) -> dict[str, Ref | Files]:
    """Return the inputs without those that are None, which the run does not ask for."""
    return {name: ref for name, ref in inputs.items() if ref is not None}
