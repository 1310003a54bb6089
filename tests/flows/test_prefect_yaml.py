"""prefect.yaml, checked strictly: Prefect itself takes misspelled keys, bad hours and unknown timezones in silence."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect import Flow
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.utilities.importtools import import_object
from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.run_config import load_run_config

CHECKOUT = Path(__file__).resolve().parents[2]
FILE = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text(encoding="utf-8"))
NOT_FOR_WORKERS = {"PREFECT_LOGGING_LEVEL"}
"""A local run is quiet; the log of a deployed one is read in the UI."""


SCHEDULE = {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "slug": "nightly", "active": True}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class Schedule(Strict):
    cron: str
    timezone: str
    slug: str
    active: bool

    @field_validator("cron")
    @classmethod
    def _is_a_cron(cls, cron: str) -> str:
        return CronSchedule(cron=cron).cron

    @field_validator("timezone")
    @classmethod
    def _exists(cls, name: str) -> str:
        return ZoneInfo(name).key


class JobVariables(Strict):
    env: dict[str, str]


class WorkPool(Strict):
    name: str
    job_variables: JobVariables


class Concurrency(Strict):
    limit: int = Field(ge=1)
    collision_strategy: ConcurrencyLimitStrategy


class Deployment(Strict):
    name: str
    description: str
    entrypoint: str
    parameters: dict[str, Any]
    work_pool: WorkPool
    concurrency_limit: Concurrency | None = None
    schedules: list[Schedule] = []

    def flow(self) -> Flow[..., Any]:
        file, _, name = self.entrypoint.partition(":")
        assert (CHECKOUT / file).is_file()
        return import_object(f"{file.removesuffix('.py').replace('/', '.')}.{name}")


class PrefectFile(Strict):
    name: str
    prefect_version: str = Field(alias="prefect-version")
    build: list[dict[str, dict[str, Any]]]
    pull: list[dict[str, dict[str, Any]]]
    definitions: dict[str, Any]
    deployments: list[Deployment]


@pytest.fixture(scope="module")
def file() -> PrefectFile:
    return PrefectFile.model_validate(FILE)


def test_every_key_is_one_that_prefect_reads(file: PrefectFile) -> None:
    assert [deployment.name for deployment in file.deployments] == ["simple", "advanced", "online"]


@pytest.mark.parametrize("wrong", [{"cron": "0 25 * * *"}, {"timezone": "Europe/Berln"}, {"timezon": "Europe/Berlin"}])
def test_a_wrong_schedule_would_be_noticed(wrong: dict[str, str]) -> None:
    Schedule(**SCHEDULE)
    with pytest.raises((ValueError, KeyError)):
        Schedule(**SCHEDULE | wrong)


def test_the_version_is_the_one_that_is_installed(file: PrefectFile) -> None:
    requirements = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"prefect=={file.prefect_version}" in requirements


def test_only_the_advanced_one_has_a_schedule_one_run_at_a_time_and_the_next_one_queued(file: PrefectFile) -> None:
    simple, advanced, online = file.deployments
    assert simple.schedules == online.schedules == []
    (nightly,) = advanced.schedules
    assert (nightly.cron, nightly.active) == ("0 2 * * *", True)
    assert advanced.concurrency_limit is not None
    assert online.concurrency_limit == advanced.concurrency_limit
    assert advanced.concurrency_limit.limit == 1
    assert advanced.concurrency_limit.collision_strategy == ConcurrencyLimitStrategy.ENQUEUE


def test_entrypoints_are_flows_that_take_the_parameters(file: PrefectFile) -> None:
    for deployment in file.deployments:
        flow = deployment.flow()
        assert flow.name == "train"
        assert set(deployment.parameters) <= set(inspect.signature(flow.fn).parameters)


def test_the_configs_of_the_deployments_can_be_loaded(file: PrefectFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SONGGRAPH_EVENTS", raising=False)
    for deployment in file.deployments:
        run = load_run_config(CHECKOUT / deployment.parameters["config"])
        assert run.uses_synthetic_log


def test_an_update_and_a_full_training_make_versions_of_one_model_on_one_split() -> None:
    online, nightly = (load_run_config(CHECKOUT / "configs" / f"{name}.toml") for name in ("online", "nightly"))
    assert (online.name, online.split, online.model) == (nightly.name, nightly.split, nightly.model)


def test_the_workers_get_the_settings_of_the_project(file: PrefectFile) -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["prefect"]
    settings = dict(_variables(project, "PREFECT"))
    for deployment in file.deployments:
        given = {name: value for name, value in deployment.work_pool.job_variables.env.items() if "PREFECT" in name}
        assert given == {name: value for name, value in settings.items() if name not in NOT_FOR_WORKERS}


def _variables(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        name = f"{prefix}_{key.upper()}"
        if isinstance(value, Mapping):
            yield from _variables(value, name)
        else:
            yield name, str(value).lower() if isinstance(value, bool) else str(value)


def test_nothing_is_filled_in_from_the_environment_and_steps_are_known(file: PrefectFile) -> None:
    text = (CHECKOUT / "prefect.yaml").read_text(encoding="utf-8")
    steps = [(path, step) for entry in file.build + file.pull for path, step in entry.items()]
    outputs = {f"{step['id']}.stdout" for _, step in steps if "id" in step}
    assert set(re.findall(r"{{\s*(.*?)\s*}}", text)) <= outputs
    for path, step in steps:
        taken = inspect.signature(import_object(path)).parameters
        assert set(step) - {"id"} <= set(taken)
