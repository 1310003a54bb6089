"""Stage 6: bundle everything that belongs to the model, register it as a version, and promote it if it is better."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from registry.location import exists, resolve_uri, without_credentials
from tasks.config import RunConfig
from tasks.ingest import Log
from tasks.key import LIBRARIES
from tasks.ref import Ref
from tasks.stage import Stage
from tasks.store import read_manifest, write_json
from tasks.train import graph_file, trained_on_everything


def _register(
    folder: Path,
    config: Mapping[str, Any],
    model: Path,
    evaluation: Path,
    training_graph: Path,
    graph: Path,
    lineage: Mapping[str, str],
) -> Mapping[str, Any]:
    from data.graph import load_graph
    from registry.bundle import assemble_bundle
    from registry.register import register as register_bundle

    bundle = folder / "bundle"
    assemble_bundle(
        bundle,
        model=model,
        vocabularies=graph,
        evaluation=evaluation,
        graph=load_graph(graph_file(trained_on_everything(model), training_graph, graph)),
        source=config["source"],
        split=config["split"],
        lineage=lineage,
        versions={name: version(name) for name in LIBRARIES},
    )
    registered = register_bundle(bundle, config["name"])
    decision = registered.decision
    told = {
        "name": registered.name,
        "version": registered.version,
        "run_id": registered.run_id,
        "champion": registered.champion,
        "decision": decision.reason,
    }
    write_json(folder / "registration.json", told)
    return told


def _still_registered(ref: Ref) -> bool:
    """The stored result only points to the registry: look there too, without loading MLflow."""
    told = read_manifest(ref.value)["counts"]
    return exists(told["name"], told["version"], run_id=told["run_id"])


REGISTER = Stage(
    "register",
    2,
    _register,
    code=("registry.bundle", "registry.register", "data.training_graph"),  # what a version says of its split
    valid=_still_registered,
)


def register(run: RunConfig, log: Log, model: Ref, evaluation: Ref, training_graph: Ref, graph: Ref) -> Ref:
    """Register the model under the run's name; the folder holds ``registration.json`` and the bundle."""
    config = {
        "name": run.name,
        "uri": without_credentials(resolve_uri()),
        "source": "synthetic" if log.synthetic else "log",
        "split": run.split_config().model_dump(mode="json"),
    }
    inputs: dict[str, Any] = {
        "model": model,
        "evaluation": evaluation,
        "training_graph": training_graph,
        "graph": graph,
    }
    lineage = {"log": log.files.sha256, **{name: ref.sha256 for name, ref in inputs.items()}}
    return REGISTER.working(partial(_register, lineage=lineage))(run, config, **inputs)
