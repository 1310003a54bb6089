"""What Prefect adds to a stage: retries, a time limit, an artifact."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from data.errors import InputError
from tasks.cache.ref import Ref
from tasks.cache.stage import Stage, run_stage
from tasks.run import Run
from tasks.run_config import RunConfig


@pytest.fixture
def run(prefect_api: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ref]:
    """Run one stage that does ``work``, within a flow, with retries that do not wait."""
    monkeypatch.setattr(run_stage, "retry_delay_seconds", 0)

    def one_stage(work: Callable[..., Mapping[str, Any]], **config: Any) -> Ref:
        stage = Stage("try", 1, work, code=("data.errors",))
        return flow(name="one-stage")(lambda: Run(RunConfig.parse(config, "the run")).execute(stage, {"k": 1}))()

    return one_stage


def test_a_failure_of_the_disk_is_tried_again(run: Callable[..., Ref]) -> None:
    tries = []

    def fail_twice(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
        tries.append(folder)
        if len(tries) < 3:
            raise OSError(errno.EIO, "Input/output error")
        (folder / "result.txt").write_text("done")
        return {}

    assert (run(fail_twice).value / "result.txt").read_text() == "done"
    assert len(tries) == 3


def test_bad_input_is_not_tried_again(run: Callable[..., Ref]) -> None:
    tries = []

    def refuse(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
        tries.append(folder)
        raise InputError("bad log")

    with pytest.raises(InputError, match="bad log"):
        run(refuse)
    assert len(tries) == 1


def test_a_stage_that_takes_too_long_fails_and_is_not_tried_again(run: Callable[..., Ref]) -> None:
    tries = []

    def dawdle(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
        tries.append(folder)
        for _ in range(300):
            time.sleep(0.1)
        return {}

    with pytest.raises(TimeoutError):
        run(dawdle, timeout_minutes=1 / 60)
    assert len(tries) == 1


def test_a_stage_leaves_a_table_of_its_counts_its_key_and_why_it_ran(run: Callable[..., Ref]) -> None:
    def count(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"listens": 12_345}

    ref = run(count)
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["stage-try"]))
        newest = max(client.read_artifacts(artifact_filter=wanted), key=lambda artifact: artifact.created)
    assert "| listens | 12,345 |" in newest.data
    assert f"`{ref.value.name}`" in newest.data
    assert "Ran: first run" in newest.data
