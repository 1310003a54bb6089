"""The register stage: bundles all that belongs to the model, registers a version, and asks the gate."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from registry.backend.client import exists
from registry.backend.location import resolve_uri, without_credentials
from tasks.cache.key import LIBRARIES
from tasks.cache.ref import Ref
from tasks.cache.result_store import read_stage_manifest, write_json
from tasks.cache.stage import Stage
from tasks.run import Run, present
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
    warm_start: Path | None = None,
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
        warmed_from=seen_by(warm_start) if is_warmed(model) else (),
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
    """Return whether the version is still in the registry, to which the stored result only points."""
    version = read_stage_manifest(ref.value)["counts"]
    return exists(version["name"], version["version"], run_id=version["run_id"])


REGISTER = Stage(
    "register",
    3,
    _register,
    code=("registry.bundle.assemble", "registry.register", "data.training_graph"),  # what a version says of its split
    valid=_still_registered,
)


def register(
    run: Run,
    log: Log,
    model: Ref,
    evaluation: Ref,
    training_graph: Ref,
    graph: Ref,
    audit: Ref,
    seeds: Ref | None = None,
    refit: Ref | None = None,
    earlier: Ref | None = None,
) -> Ref | None:
    """Register the model under the run's name and let the gate decide; None if the run registers nothing.

    The folder holds ``registration.json``, ``decision.json`` and the bundle.
    """
    if not run.registers:
        return None
    config = {
        "name": run.config.name,
        "uri": without_credentials(resolve_uri()),
        "source": "synthetic" if log.synthetic else "log",
        "split": run.config.split.model_dump(mode="json"),
        "gate": run.config.gate.model_dump(mode="json"),
    }
    inputs: dict[str, Any] = present({
        "model": model, "evaluation": evaluation, "training_graph": training_graph, "graph": graph, "audit": audit,
        "seeds": seeds, "refit": refit, "warm_start": earlier,
    })  # fmt: skip
    lineage = {"log": log.files.sha256, **{name: ref.sha256 for name, ref in inputs.items()}}
    return run.execute(REGISTER.bind(lineage=lineage), config, **inputs)
