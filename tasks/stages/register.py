"""Bundle everything that belongs to the model, register it as a version, and ask the gate."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from registry.backend.client import exists
from registry.backend.location import resolve_uri, without_credentials
from tasks.cache.key import LIBRARIES
from tasks.cache.ref import Ref
from tasks.cache.result_store import read_manifest, write_json
from tasks.cache.stage import Stage
from tasks.run_config import RunConfig
from tasks.stages.ingest import Log
from tasks.stages.split import decided_split
from tasks.stages.train import graph_file, trained_on_everything
from tasks.stages.warm_start import is_warmed, seen_by


def _register(
    folder: Path,
    config: Mapping[str, Any],
    model: Path,
    evaluation: Path,
    training_graph: Path,
    graph: Path,
    audit: Path,
    lineage: Mapping[str, str],
    seeds: Path | None = None,
    refit: Path | None = None,
    start: Path | None = None,
) -> Mapping[str, Any]:
    from data.graph import load_graph
    from registry.bundle.assemble import assemble_bundle
    from registry.gate.gate_config import GateConfig
    from registry.register import register as register_bundle

    bundle = folder / "bundle"
    assemble_bundle(
        bundle,
        model=model,
        vocabularies=graph,
        evaluation=evaluation,
        graph=load_graph(graph_file(trained_on_everything(model), training_graph, graph)),
        source=config["source"],
        split=decided_split(config["split"], training_graph),
        warmed_from=seen_by(start) if is_warmed(model) else (),
        lineage=lineage,
        versions={name: version(name) for name in LIBRARIES},
        profile=graph / "profile.json",
        audit=audit / "audit.json",
        seeds=seeds / "seeds.json" if seeds else None,
        refit=refit,
    )
    registered = register_bundle(bundle, config["name"], gate=GateConfig.parse(config["gate"], "gate"))
    decision = registered.decision
    summary = {
        "name": registered.name,
        "version": registered.version,
        "run_id": registered.run_id,
        "champion": registered.champion,
        "outcome": decision.outcome,
        "decision": decision.reason,
    }
    write_json(folder / "registration.json", summary)
    write_json(folder / "decision.json", decision.model_dump(mode="json"))
    return summary


def _still_registered(ref: Ref) -> bool:
    """Return if the version is still in the registry; the stored result only points to it."""
    registered = read_manifest(ref.value)["counts"]
    return exists(registered["name"], registered["version"], run_id=registered["run_id"])


REGISTER = Stage(
    "register",
    3,
    _register,
    code=("registry.bundle.assemble", "registry.register", "data.training_graph"),  # what a version says of its split
    valid=_still_registered,
)


def register(
    run: RunConfig,
    log: Log,
    model: Ref,
    evaluation: Ref,
    training_graph: Ref,
    graph: Ref,
    audit: Ref,
    seeds: Ref | None = None,
    refit: Ref | None = None,
    start: Ref | None = None,
) -> Ref:
    """Register the model under the run's name and let the gate decide.

    The folder holds ``registration.json``, ``decision.json`` and the bundle.
    """
    config = {
        "name": run.name,
        "uri": without_credentials(resolve_uri()),
        "source": "synthetic" if log.synthetic else "log",
        "split": run.split_config().model_dump(mode="json"),
        "gate": run.gate_config().model_dump(mode="json"),
    }
    optional = {"seeds": seeds, "refit": refit, "start": start}
    inputs: dict[str, Any] = {
        "model": model,
        "evaluation": evaluation,
        "training_graph": training_graph,
        "graph": graph,
        "audit": audit,
        **{name: ref for name, ref in optional.items() if ref},
    }
    lineage = {"log": log.files.sha256, **{name: ref.sha256 for name, ref in inputs.items()}}
    return REGISTER.working(partial(_register, lineage=lineage))(run, config, **inputs)
