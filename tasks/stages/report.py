"""The report stage: one HTML file about the run, logged with the registered version and linked from Prefect's run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact

from data.digest import sha256_of_file, sha256_of_json
from data.project import artifacts_folder
from tasks.cache.ref import Ref
from tasks.cache.stage import Stage
from tasks.run import Run
from tasks.run_config import RunConfig

REPORT_FILE = "report.html"
PAGE = ("page.html.jinja", "style.css")
"""Files of the package that are no code, but part of the key all the same."""


def _report(
    folder: Path,
    config: Mapping[str, Any],
    listens: Path,
    graph: Path,
    training_graph: Path,
    model: Path,
    evaluation: Path,
    registration: Path | None = None,
    seeds: Path | None = None,
    **baselines: Path,
) -> Mapping[str, Any]:
    from evaluation.report.page import write_report as write
    from evaluation.report.sources import Sources

    sources = Sources(
        name=config["name"],
        listens=listens,
        graph=graph,
        training_graph=training_graph,
        model=model,
        evaluation=evaluation,
        baselines=baselines,
        registration=registration,
        seeds=seeds,
        synthetic=config["synthetic"],
    )
    shown = write(folder / REPORT_FILE, sources)
    _attach(sources.registered(), folder / REPORT_FILE)
    return {"sections": len(shown), "kilobytes": (folder / REPORT_FILE).stat().st_size // 1000}


def _attach(registered: Mapping[str, Any], path: Path) -> None:
    """Log the file to the registered version's run in MLflow, if a version was registered."""
    from registry.register import attach

    if registered:
        attach(registered["name"], registered["version"], path)


REPORT = Stage("report", 1, _report, code=("evaluation.report.page", "registry.register"))


def write_report(
    run: Run,
    listens: Ref,
    graph: Ref,
    training_graph: Ref,
    model: Ref,
    evaluation: Ref,
    baselines: Mapping[str, Ref],
    registration: Ref | None = None,
    seeds: Ref | None = None,
) -> Ref:
    """Write the report of a run from the folders that its stages left; the folder holds ``report.html``.

    Timings and memory come from the stages' manifests and are no part of the key.

    Args:
        baselines: by name, the evaluation of each baseline; empty for a run without.
        registration: the registered version; none leaves the decision out and logs nothing to MLflow.
        seeds: the spread between seeds, if several were trained.
    """
    config = {"name": run.config.name, "synthetic": run.config.uses_synthetic_log, "page": _page_digest()}
    inputs: dict[str, Any] = {
        "listens": listens, "graph": graph, "training_graph": training_graph, "model": model, "evaluation": evaluation,
        "registration": registration, "seeds": seeds, **baselines,
    }  # fmt: skip
    return run.execute(REPORT, config, **inputs)


def publish_report(config: RunConfig, report: Ref) -> None:
    """Put the report at ``artifacts/reports/<name>.html``, in one move, and link it from the Prefect run."""
    latest = artifacts_folder() / "reports" / f"{config.name}.html"
    latest.parent.mkdir(parents=True, exist_ok=True)
    partial = latest.with_name(f".{latest.name}.{os.getpid()}")
    shutil.copyfile(report.value / REPORT_FILE, partial)
    partial.replace(latest)
    create_link_artifact(
        link=latest.as_uri(),
        link_text=f"Report of {config.name}",
        key="report",
        description="Numbers against baselines and the champion, sample users, data and lineage. Browsers do not "
        "follow a link from a page to a file: copy the address.",
    )


def _page_digest() -> str:
    package = files("evaluation.report")
    return sha256_of_json([sha256_of_file(Path(str(package / name))) for name in PAGE])
