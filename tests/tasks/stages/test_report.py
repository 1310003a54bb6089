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
from tasks.cache.ref import Ref
from tasks.run import Run
from tasks.run_config import load_run_config
from tasks.stages.evaluate import evaluate
from tasks.stages.graph import build_graph
from tasks.stages.ingest import find_log, ingest
from tasks.stages.report import publish_report, write_report
from tasks.stages.split import split
from tasks.stages.train import train_models
from tests.tasks.plain_run import PlainRun

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project root of this module; stages run as plain calls."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SONGGRAPH_HOME", str(home))
        yield home


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    log = write_log(SyntheticConfig(preset="tiny"), home / "log")[0]
    tables = {"model": {"architecture": "lightgcn", "embedding_dim": 8}}
    return PlainRun(load_run_config(None, tables, {"num_epochs": 1, "name": "songs"}, events=str(log)))


@pytest.fixture(scope="module")
def refs(home: Path, run: Run) -> Mapping[str, Any]:
    """What the stages before the report leave, with a version that was registered."""
    listens = ingest(run, find_log(run))
    graph = build_graph(run, listens)
    training_graph = split(run, graph, listens)
    (model,) = train_models(run, training_graph, graph)
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
    run: Run, refs: Mapping[str, Any], attached: list[tuple[str, int, str]]
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
    run: Run, refs: Mapping[str, Any], attached: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write_report(run, **refs)
    monkeypatch.setattr(tasks.stages.report, "_page_digest", lambda: "another")
    assert write_report(run, **refs).path != before.path


def test_a_run_that_registered_nothing_logs_nothing(run: Run, refs: Mapping[str, Any], attached: list[Any]) -> None:
    written = write_report(run, **{**refs, "registration": None})
    assert (written.value / "report.html").is_file()
    assert attached == []


def test_the_report_is_published_under_the_runs_name_and_linked(
    run: Run, refs: Mapping[str, Any], attached: list[Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links: list[dict[str, str]] = []
    monkeypatch.setattr(tasks.stages.report, "create_link_artifact", lambda **link: links.append(link))
    written = write_report(run, **refs)
    for _ in range(2):
        publish_report(run.config, written)
    latest = home / "artifacts" / "reports" / "songs.html"
    assert latest.read_bytes() == (written.value / "report.html").read_bytes()
    assert [path.name for path in latest.parent.iterdir()] == ["songs.html"]
    assert [(link["key"], link["link"]) for link in links] == [("report", latest.as_uri())] * 2


LOOK_UP = """
import json, sys
from tasks.run_config import load_run_config
from tasks.cache.ref import Ref
from tasks.stages.report import write_report
from tasks.run import present, Run

given = json.loads(sys.argv[1])
refs = {name: Ref(**ref) for name, ref in given["refs"].items()}
refs["baselines"] = {"popularity": refs["evaluation"]}

class LookUp(Run):
    def execute(self, stage, settings, code=(), **inputs):
        return stage.look_up(stage.parts(settings, present(inputs), code))[0]

run = LookUp(load_run_config(None, given["tables"], {"num_epochs": 1, "name": "songs"}, events=given["events"]))
found = write_report(run, **refs)
heavy = {"torch", "torch_geometric", "mlflow", "matplotlib", "jinja2"} & set(sys.modules)
print(json.dumps({"path": found and found.path, "heavy": sorted(heavy)}))
"""


def test_a_cached_report_imports_nothing_heavy(
    run: Run, refs: Mapping[str, Any], attached: list[Any], home: Path
) -> None:
    written = write_report(run, **refs)
    plain = {name: {"path": ref.path, "sha256": ref.sha256} for name, ref in refs.items() if name != "baselines"}
    given = {"refs": plain, "tables": {"model": run.config.model}, "events": run.config.ingest.events}
    environment = {**os.environ, "SONGGRAPH_HOME": str(home)}
    command = [sys.executable, "-c", LOOK_UP, json.dumps(given)]
    ended = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == {"path": written.path, "heavy": []}
