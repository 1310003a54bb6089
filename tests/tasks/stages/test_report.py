"""The report stage: written once, logged to the version, published at a stable place, and cheap when cached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import tasks.stages.report
from data.synthetic.log import SyntheticConfig, write_log
from tasks.cache.key import key_of
from tasks.cache.ref import Ref
from tasks.cache.stage import Stage, executor
from tasks.run_config import RunConfig, load_run_config
from tasks.stages.evaluate import evaluate
from tasks.stages.graph import build_graph
from tasks.stages.ingest import find_log, ingest
from tasks.stages.report import publish_report, write_report
from tasks.stages.split import split
from tasks.stages.train import train_model

CHECKOUT = Path(__file__).resolve().parents[3]


def compute(stage: Stage, run: RunConfig, config: Any, parts: Any, inputs: Any) -> Ref:
    """A stage as a plain call."""
    key = key_of(parts)
    if found := stage.look_up(parts)[0]:
        return found.told(cached=True, why="")
    with stage.store.scratch(stage.name, key) as scratch:
        counts = stage.work(scratch, config, **{name: ref.value for name, ref in inputs.items()})
        manifest = {"key_parts": parts, "counts": counts, "config": config, "seconds": 1.5, "peak_mib": 123.4}
        return stage.store.publish(scratch, stage.name, key, run.name, manifest)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project root of this module; stages run as plain calls."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SONGGRAPH_HOME", str(home))
        token = executor.set(compute)
        yield home
        executor.reset(token)


@pytest.fixture(scope="module")
def run(home: Path) -> RunConfig:
    log = write_log(SyntheticConfig(preset="tiny"), home / "log")[0]
    tables = {"model": {"architecture": "lightgcn", "embedding_dim": 8}}
    return load_run_config(None, tables, {"num_epochs": 1, "name": "songs"}, events=str(log))


@pytest.fixture(scope="module")
def refs(home: Path, run: RunConfig) -> Mapping[str, Any]:
    """What the stages before the report leave, with a version that was registered."""
    listens = ingest(run, find_log(run))
    graph = build_graph(run, listens)
    training_graph = split(run, graph, listens)
    model = train_model(run, training_graph, graph)
    evaluation = evaluate(run, model, training_graph, graph, {})
    folder = home / "registration"
    folder.mkdir()
    (folder / "registration.json").write_text(json.dumps({"name": "songs", "version": 3, "decision": "Held: why."}))
    registration = Ref(str(folder), "a" * 64)
    first = {"listens": listens, "graph": graph, "training_graph": training_graph, "model": model}
    return {**first, "evaluation": evaluation, "baselines": {"popularity": evaluation}, "registration": registration}


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, str]]:
    """What was logged to which version."""
    calls: list[tuple[str, int, str]] = []

    def attach(name: str, version: int, path: Path, uri: str | None = None) -> None:
        calls.append((name, version, path.read_text(encoding="utf-8")))

    monkeypatch.setattr("registry.register.attach", attach)
    return calls


def test_the_report_is_written_logged_to_its_version_and_then_cached(
    run: RunConfig, refs: Mapping[str, Any], attached: list[tuple[str, int, str]]
) -> None:
    written = write_report(run, **refs)
    html = (written.value / "report.html").read_text(encoding="utf-8")
    assert attached == [("songs", 3, html)]
    assert "songs, version 3" in html
    assert "123" in html.split('<section id="stages">')[1]
    again = write_report(run, **refs)
    assert (again.path, again.cached) == (written.path, True)
    assert len(attached) == 1


def test_a_changed_template_is_another_report(
    run: RunConfig, refs: Mapping[str, Any], attached: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write_report(run, **refs)
    monkeypatch.setattr(tasks.stages.report, "_page_digest", lambda: "another")
    assert write_report(run, **refs).path != before.path


def test_a_run_that_registered_nothing_logs_nothing(
    run: RunConfig, refs: Mapping[str, Any], attached: list[Any]
) -> None:
    written = write_report(run, **{**refs, "registration": None})
    assert (written.value / "report.html").is_file()
    assert attached == []


def test_the_report_is_published_under_the_runs_name_and_linked(
    run: RunConfig, refs: Mapping[str, Any], attached: list[Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links: list[dict[str, str]] = []
    monkeypatch.setattr(tasks.stages.report, "create_link_artifact", lambda **link: links.append(link))
    written = write_report(run, **refs)
    for _ in range(2):
        latest = publish_report(run, written)
    assert latest == home / "artifacts" / "reports" / "songs.html"
    assert latest.read_bytes() == (written.value / "report.html").read_bytes()
    assert [path.name for path in latest.parent.iterdir()] == ["songs.html"]
    assert [(link["key"], link["link"]) for link in links] == [("report", latest.as_uri())] * 2


LOOK_UP = """
import json, sys
from tasks.run_config import load_run_config
from tasks.cache.ref import Ref
from tasks.stages.report import write_report
from tasks.cache.stage import executor

given = json.loads(sys.argv[1])
refs = {name: Ref(**ref) for name, ref in given["refs"].items()}
refs["baselines"] = {"popularity": refs["evaluation"]}
executor.set(lambda stage, run, config, parts, inputs: stage.look_up(parts)[0])
run = load_run_config(None, given["tables"], {"num_epochs": 1, "name": "songs"}, events=given["events"])
found = write_report(run, **refs)
heavy = {"torch", "torch_geometric", "mlflow", "matplotlib", "jinja2"} & set(sys.modules)
print(json.dumps({"path": found and found.path, "heavy": sorted(heavy)}))
"""


def test_a_cached_report_imports_nothing_heavy(
    run: RunConfig, refs: Mapping[str, Any], attached: list[Any], home: Path
) -> None:
    written = write_report(run, **refs)
    plain = {name: {"path": ref.path, "sha256": ref.sha256} for name, ref in refs.items() if name != "baselines"}
    given = {"refs": plain, "tables": {"model": run.model}, "events": run.ingest["events"]}
    environment = {**os.environ, "SONGGRAPH_HOME": str(home)}
    command = [sys.executable, "-c", LOOK_UP, json.dumps(given)]
    ended = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == {"path": written.path, "heavy": []}
