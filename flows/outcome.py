"""How a flow ends: Completed, or Cached where nothing had to be computed, with what its summary needs."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.cache.ref import Ref
from tasks.cache.result_store import read_manifest
from tasks.run_config import RunConfig


def finished(run: RunConfig, *results: Ref | None) -> State:
    """The flow's final state; its data says of each stage whether it ran, why, how long, and where its files are.

    Args:
        results: of the stages, in their order; None for one that the run does not ask for.
    """
    stages = [_stage(ref) for ref in results if ref]
    cached = all(stage["cached"] for stage in stages)
    outcome = {"name": run.name, "trainer": run.trainer, "stages": stages, "cached": cached}
    if outcome["cached"]:
        return Completed(name="Cached", message="Nothing new: every stage was cached.", data=outcome)
    ran = ", ".join(stage["stage"] for stage in stages if not stage["cached"])
    return Completed(message=f"Ran {ran}.", data=outcome)


def _stage(ref: Ref) -> dict[str, Any]:
    manifest = read_manifest(ref.value)
    return {
        "stage": manifest["stage"],
        "cached": ref.cached,
        "why": ref.why,
        "seconds": manifest["seconds"],
        "folder": ref.path,
        "counts": manifest["counts"],
    }
