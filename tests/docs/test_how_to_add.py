"""Follows docs/architecture.md, "How to add": its examples work, and it names the places that have to change."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from data.graph import LISTENS, message_graph, node_counts
from evaluation.baselines.choices import BASELINES, CHOICES, create_baseline
from evaluation.evaluation import evaluate
from evaluation.metrics.accuracy import METRICS
from models.factory import create_model
from tasks import pipeline
from tasks.run_config import load_run_config
from tests.docs.pages import ROOT, SPAN, marked_block, marked_table, read
from tests.tasks.plain_run import PlainRun
from trainers.factory import create_trainer

PAGE = "docs/architecture.md"
PACKAGES = ("flows", "tasks", "registry", "trainers", "evaluation", "models", "data")
PRECEDENTS = {
    "trainer": ("trainers/curriculum.py", r"\bcurriculum\b"),
    "model": ("models/mf.py", r'"mf"|"models\.mf:|from \.mf '),
    "stage": ("tasks/stages/refit.py", r"stages\.refit\b"),
    "metric": ("evaluation/metrics/accuracy.py", r'"hit_rate"'),
    "baseline": ("evaluation/baselines/ease.py", r'"ease"|baselines\.ease\b'),
}
"""One of each kind that is there already: its file, and how others name it."""

every_kind = pytest.mark.parametrize("kind", PRECEDENTS)


def places(kind: str) -> list[tuple[str, str]]:
    """Each file or folder that the page says has to change, and what in it."""
    _, *rows = marked_table(PAGE, f"places: {kind}")
    return [(path, what) for where, what in rows for path in SPAN.findall(where)]


def files_that_name(pattern: str) -> set[str]:
    sources = [path for name in PACKAGES for suffix in ("py", "pyi") for path in (ROOT / name).rglob(f"*.{suffix}")]
    return {str(path.relative_to(ROOT)) for path in sources if re.search(pattern, path.read_text(encoding="utf-8"))}


@every_kind
def test_the_page_names_exactly_the_files_of_code_that_change(kind: str) -> None:
    own, pattern = PRECEDENTS[kind]
    listed = {path for path, _ in places(kind) if path.split("/")[0] in PACKAGES}
    there_already = files_that_name(pattern) | {own}
    folder = f"{Path(own).parent}/"
    assert listed == {folder if path == own and folder in listed else path for path in there_already}


@every_kind
def test_every_place_and_every_table_in_it_exists(kind: str) -> None:
    for path, what in places(kind):
        assert (ROOT / path).exists(), path
        if path.endswith(".py"):
            names = [name for name in SPAN.findall(what) if name.isidentifier()]
            assert [name for name in names if not re.search(rf"\b{name}\b", read(path))] == [], path


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """``save("my_models.py")``: write the page's block of that name into a folder on Python's path, and import it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str) -> ModuleType:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(marked_block(PAGE, f"file: {name}"), encoding="utf-8")
        module = name.removesuffix(".py").replace("/", ".")
        spec = importlib.util.spec_from_file_location(module, tmp_path / name)
        assert spec
        assert spec.loader
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, module, loaded)
        spec.loader.exec_module(loaded)
        return loaded

    return write


@pytest.fixture
def small() -> dict[str, Any]:
    return {"batch_size": 64, "num_eval_users": 20, "eval_k": 5, "device": "cpu"}


def test_the_trainer_sees_a_share_of_the_pairs(save, small, tiny_training_graph, tmp_path) -> None:
    save("my_trainers.py")
    name, model = "my_trainers:SomePairsTrainer", {**node_counts(tiny_training_graph), "embedding_dim": 8}
    trainer = create_trainer(name, model, {**small, "share": 0.5}, tmp_path / "out")
    passed = []
    trainer.train_on_pairs = lambda graph, pairs: passed.append(pairs.shape[1]) or {"loss": 0.5}
    trainer.train(tiny_training_graph, num_epochs=2)
    pairs = message_graph(tiny_training_graph)[LISTENS].edge_index.shape[1]
    assert all(0.3 * pairs < count < 0.7 * pairs for count in passed)
    again = create_trainer(name, model, {**small, "share": 1.0}, tmp_path / "again")
    history = again.train(tiny_training_graph, num_epochs=3)["history"]
    assert history[-1]["loss"] < history[0]["loss"]


def test_the_model_learns_and_keeps_the_promises_of_a_model(save, small, tiny_training_graph, tmp_path) -> None:
    save("my_models.py")
    graph = tiny_training_graph
    config = {"architecture": "my_models:OneHop", **node_counts(graph), "embedding_dim": 8, "strength": 0.5}
    trainer = create_trainer("advanced", config, small, tmp_path / "out")
    history = trainer.train(graph, num_epochs=3)["history"]
    assert history[-1]["loss"] < history[0]["loss"]
    model = create_model({**config, "dropout": 0.0}).eval()
    seen = message_graph(graph)
    listens = seen[LISTENS].edge_index
    assert torch.equal(model.encode(graph).user, model.encode(seen).user)
    assert not torch.allclose(model.encode(seen).user, model.encode_without(seen, listens[:, :20]).user)
    alone = create_model({**config, "strength": 0.0}).eval()
    assert not torch.allclose(alone.encode(seen).user, model.encode(seen).user)


def test_the_metric_is_measured_everywhere(save, tiny_training_graph, monkeypatch) -> None:
    monkeypatch.setitem(METRICS, "f1", save("my_metrics.py").f1)
    score = create_baseline("popularity").fit(tiny_training_graph)
    found = evaluate(score, tiny_training_graph, "test", k=5)
    precision, recall = (found.per_user[f"{name}@5"] for name in ("precision", "recall"))
    harmonic = torch.where(precision + recall > 0, 2 * precision * recall / (precision + recall).clamp(min=1e-9), 0.0)
    assert torch.allclose(found.per_user["f1@5"], harmonic)
    assert found.intervals()["f1@5"].low <= found.mean()["f1@5"]


def test_the_baseline_fits_by_its_name(save, tiny_training_graph, monkeypatch) -> None:
    save("my_baselines.py")
    monkeypatch.setitem(BASELINES, "similar-users", "my_baselines:SimilarUsers")
    score = create_baseline("similar-users", {"power": 1.0}).fit(tiny_training_graph)
    users = torch.arange(tiny_training_graph["user"].num_nodes)
    assert torch.equal(score(users)[3:5], score(users[3:5]))
    heard = np.zeros((len(users), tiny_training_graph["song"].num_nodes))
    heard[tuple(message_graph(tiny_training_graph)[LISTENS].edge_index.numpy())] = 1
    assert np.allclose(score(users).numpy(), heard @ heard.T @ heard)
    assert evaluate(score, tiny_training_graph, "test", k=5).mean()["recall@5"] > 0
    assert "ease" in CHOICES["all"]


@pytest.fixture
def extended_pipeline(save) -> ModuleType:
    """``tasks/pipeline.py`` with what the page says that a new stage adds to it."""
    save("tasks/stages/activity.py")
    before, new = marked_block(PAGE, "lines: tasks/pipeline.py").splitlines()
    source = read("tasks/pipeline.py")
    assert source.count(f"{before}\n") == 1
    source = source.replace(f"{before}\n", f"{before}\n{new}\n").replace(
        '"ingest", "graph"', '"ingest", "activity", "graph"'
    )
    imported = "from tasks.stages.audit import audit\n"
    source = source.replace(imported, f"from tasks.stages.activity import count_activity\n{imported}")
    module = ModuleType("extended_pipeline")
    exec(compile(source, "tasks/pipeline.py", "exec"), module.__dict__)
    return module


def test_the_stage_is_part_of_every_run(extended_pipeline, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SONGGRAPH_HOME", str(tmp_path / "home"))
    run = PlainRun(load_run_config(None, {"synthetic": {"preset": "tiny"}}))
    for cached in (False, True):
        results = list(extended_pipeline.until("graph", extended_pipeline.pipeline(run)))
        assert [(ref.stage, ref.cached) for ref in results] == [
            (stage, cached) for stage in ("ingest", "activity", "graph")
        ]
    plays = json.loads((results[1].value / "activity.json").read_text(encoding="utf-8"))["plays"]
    listens = pq.read_table(results[0].value / "listens.parquet")
    assert sum(plays) == sum(listens["plays"].to_pylist())
    assert "activity" in extended_pipeline.stages_of(run.config)


def test_the_table_of_stages_is_the_pipelines() -> None:
    _, *rows = marked_table(PAGE, "stages")
    names = [SPAN.findall(row[0])[0] for row in rows]
    assert names == ["synthesize", *pipeline.STAGES]
    optional = {name for name, row in zip(names, rows, strict=True) if row[0].startswith("(")}
    assert {"synthesize", *pipeline.STAGES} - optional == set(pipeline.stages_of(load_run_config()))
