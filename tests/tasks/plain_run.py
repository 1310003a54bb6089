"""Stages as plain calls, without Prefect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tasks.cache.key import key_of
from tasks.cache.ref import Files, Ref
from tasks.cache.stage import Stage
from tasks.run import Run, present
from tasks.run_config import RunConfig


@dataclass(frozen=True)
class PlainRun(Run):
    """Gives the stored result of a stage, or computes and publishes it, in this process."""

    def execute(
        self, stage: Stage, settings: Mapping[str, Any], code: Iterable[str] = (), **inputs: Ref | Files | None
    ) -> Ref:
        given = present(inputs)
        parts = stage.parts(settings, given, code)
        key = key_of(parts)
        if found := stage.look_up(parts)[0]:
            return replace(found, cached=True)
        with stage.store.scratch(stage.name, key) as scratch:
            counts = stage.work(scratch, settings, **{name: ref.value for name, ref in given.items()})
            cost = {"seconds": 1.5, "peak_mib": 123.4}
            manifest = {"key_parts": parts, "counts": counts, "config": settings, **cost}
            return stage.store.publish(scratch, stage.name, key, self.config.remembered_as, manifest)

    def publish(self, publish: Callable[[RunConfig, Ref], None], ref: Ref) -> None:
        """Nobody looks for the results of tests."""
