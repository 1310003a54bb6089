"""What a run would do, said before it does it; looking it up computes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tasks import explain as explaining
from tasks.cache.key import key_of
from tasks.cache.ref import Ref
from tasks.cache.stage import executor
from tasks.explain import Verdict, explain
from tasks.run_config import RunConfig, load_run_config
from tasks.stages.audit import audit
from tasks.stages.baselines import fit_baselines
from tasks.stages.evaluate import evaluate
from tasks.stages.graph import build_graph
from tasks.stages.ingest import find_log, ingest
from tasks.stages.split import split
from tasks.stages.train import train_model

BEFORE_TRAIN = ["synthesize", "ingest", "graph", "split", "audit", "train"]
STAGES = [*BEFORE_TRAIN, "baselines", "evaluate", "register", "report"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SONGGRAPH_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def config(**changed: Any) -> RunConfig:
    model = {"architecture": "lightgcn", "embedding_dim": 8}
    tiny = {"synthetic": {"preset": "tiny"}, "model": model, "baselines": "none"}
    return load_run_config(None, tiny, {"num_epochs": 1}, changed)


@contextmanager
def without_prefect() -> Iterator[None]:
    """Within, stages run as plain calls."""

    def compute(stage: Any, run: RunConfig, config: Any, parts: Any, inputs: Any) -> Ref:
        key = key_of(parts)
        if found := stage.look_up(parts)[0]:
            return found
        with stage.store.scratch(stage.name, key) as scratch:
            counts = stage.work(scratch, config, **{name: ref.value for name, ref in inputs.items()})
            return stage.store.publish(scratch, stage.name, key, run.name, {"key_parts": parts, "counts": counts})

    token = executor.set(compute)
    try:
        yield
    finally:
        executor.reset(token)


def run_until_evaluated(run: RunConfig) -> dict[str, Ref]:
    """All stages but the last two: the registry takes seconds to make."""
    with without_prefect():
        listens = ingest(run, find_log(run))
        graph = build_graph(run, listens)
        training_graph = split(run, graph, listens)
        audit(run, training_graph, graph, listens)
        model = train_model(run, training_graph, graph)
        baselines = fit_baselines(run, training_graph, graph, model)
        return {"graph": graph, "evaluate": evaluate(run, model, training_graph, graph, baselines)}


def test_before_the_first_run_the_first_stage_runs_and_the_others_depend_on_it(home: Path) -> None:
    first, *others = explain(config())
    assert first == Verdict("synthesize", "will run", "first run")
    assert others == [Verdict(stage, "depends", "on synthesize") for stage in STAGES[1:]]
    assert not list((home / "artifacts").rglob("*.parquet"))


def test_after_a_run_everything_that_ran_is_cached() -> None:
    run_until_evaluated(config())
    *done, registering, reporting = explain(config())
    assert done == [Verdict(stage, "cached") for stage in [*BEFORE_TRAIN, "baseline-popularity", "evaluate"]]
    assert registering == Verdict("register", "will run", "first run")
    assert reporting == Verdict("report", "depends", "on register")


def test_after_a_change_the_changed_part_is_named() -> None:
    run_until_evaluated(config())
    verdicts = {verdict.stage: verdict for verdict in explain(config(training={"lr": 0.5}))}
    assert verdicts["split"].verdict == "cached"
    assert verdicts["audit"] == Verdict("audit", "will run", "config training.lr: not set → 0.5")
    assert verdicts["train"] == Verdict("train", "will run", "config training.lr: not set → 0.5")
    assert verdicts["evaluate"] == Verdict("evaluate", "depends", "on train")


def test_a_result_that_was_deleted_is_said_to_be_gone() -> None:
    shutil.rmtree(run_until_evaluated(config())["graph"].path)
    verdicts = {verdict.stage: verdict for verdict in explain(config())}
    assert verdicts["graph"] == Verdict("graph", "will run", "the stored result is gone")
    assert {verdicts[stage].why for stage in ("split", "audit", "train", "report")} == {"on graph", "on split"}


def test_the_command_prints_a_line_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    explaining.main(preset="tiny")
    told = capsys.readouterr().out
    assert all(stage in told for stage in STAGES)


def test_a_mistake_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        explaining.main(config="no/such.toml")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Error: The config file 'no/such.toml' does not exist")
