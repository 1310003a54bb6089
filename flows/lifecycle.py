"""How a flow starts and ends: a config becomes a run, and the results of its stages become a final state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.quiet import log_bad_input_as_a_sentence
from tasks.cache.ref import Ref
from tasks.cache.result_store import read_stage_manifest
from tasks.run import Run
from tasks.run_config import RunConfig, load_run_config


def read_config(
    config: str | None = None,
    name: str | None = None,
    trainer: str | None = None,
    num_epochs: int | None = None,
    events: str | list[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Return the config that a flow's parameters ask for; ``flows.train`` says what they mean."""
    given = {"name": name, "trainer": trainer, "num_epochs": num_epochs}
    return load_run_config(config, overrides, given, events=events)


def start(*parameters: Any, registers: bool = True) -> Run:
    """Start a run from a flow's parameters, in the order of ``read_config``."""
    log_bad_input_as_a_sentence()
    return Run(read_config(*parameters), registers)


def finish(run: Run, results: Iterable[Ref | None]) -> State:
    """Return the flow's final state: Completed, or Cached if nothing had to be computed.

    Its data says of each stage whether it ran, why, how long, and where its files are.
    """
    stages = [_stage(ref) for ref in results if ref]
    cached = all(stage["cached"] for stage in stages)
    outcome = {"name": run.config.name, "trainer": run.config.trainer, "stages": stages, "cached": cached}
    if cached:
        return Completed(name="Cached", message="Nothing new: every stage was cached.", data=outcome)
    ran = ", ".join(stage["stage"] for stage in stages if not stage["cached"])
    return Completed(message=f"Ran {ran}.", data=outcome)


def _stage(ref: Ref) -> dict[str, Any]:
    manifest = read_stage_manifest(ref.value)
    return {
        "stage": manifest["stage"],
        "cached": ref.cached,
        "why": ref.why,
        "seconds": manifest["seconds"],
        "folder": ref.path,
        "counts": manifest["counts"],
    }
