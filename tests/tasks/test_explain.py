"""What a run would do, said before it does it; looking it up computes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.cache.ref import Ref
from tasks.explain import Verdict, explain, main
from tasks.pipeline import pipeline, until
from tasks.run_config import RunConfig, load_run_config
from tests.tasks.plain_run import PlainRun

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


def run_until_evaluated(config: RunConfig) -> dict[str, Ref]:
    """Run all stages but the last two: the registry takes seconds to make."""
    return {ref.stage: ref for ref in until("evaluate", pipeline(PlainRun(config)))}


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
    main(preset="tiny")
    told = capsys.readouterr().out
    assert all(stage in told for stage in STAGES)


def test_a_mistake_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(config="no/such.toml")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Error: The config file 'no/such.toml' does not exist")
