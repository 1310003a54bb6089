"""Stages as plain calls, without Prefect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.cache.key import key_of
from tasks.cache.ref import Ref
from tasks.cache.stage import Executor, Stage, executor
from tasks.run_config import RunConfig


@pytest.fixture(scope="session")
def compute() -> Executor:
    """What a call of a stage does: give the stored result, or compute and publish it."""

    def compute(stage: Stage, run: RunConfig, config: Any, parts: Any, inputs: Any) -> Ref:
        key = key_of(parts)
        if found := stage.look_up(parts)[0]:
            return found.told(cached=True, why="")
        with stage.store.scratch(stage.name, key) as scratch:
            counts = stage.work(scratch, config, **{name: ref.value for name, ref in inputs.items()})
            manifest = {"key_parts": parts, "counts": counts}
            return stage.store.publish(scratch, stage.name, key, run.remembered_as, manifest)

    return compute


@pytest.fixture
def computing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compute: Executor) -> Iterator[None]:
    """Within a test, stages compute in a project root of its own."""
    monkeypatch.setenv("SONGGRAPH_HOME", str(tmp_path / "home"))
    token = executor.set(compute)
    yield
    executor.reset(token)
