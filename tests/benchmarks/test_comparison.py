"""The comparison: what its numbers mean, that rows do not disturb each other, and where its results are from."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from data.graph import LISTENS, message_graph, node_counts
from trainers.advanced import AdvancedTrainer

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def reporting(script: Any) -> ModuleType:
    return script("comparison_report")


def plan_of(comparison: ModuleType, *given: Any) -> Any:
    config = "configs/synthetic.toml"
    return comparison.Plan(config, comparison.load_run_config(config), *given)


def baseline_row(reporting: ModuleType, name: str, seconds: float, ndcg: float, seeds: int = 1) -> Any:
    watched = [{"recall@20": ndcg, "ndcg@20": ndcg}] * seeds
    return reporting.Row(name, [{**memory(), "fit_seconds": seconds, "watched": watched}], [users(ndcg)])


def trained_row(reporting: ModuleType, name: str, *curves: list[tuple[float, float]], stopped: str = "epochs") -> Any:
    runs = [
        {
            **memory(),
            "fit_seconds": curve[-1][0],
            "stopped": stopped,
            "curve": [{"seconds": seconds, "recall@20": ndcg, "ndcg@20": ndcg} for seconds, ndcg in curve],
        }
        for curve in curves
    ]
    return reporting.Row(name, runs, [users(curve[-1][1]) for curve in curves])


def memory() -> dict[str, int]:
    return {"peak_bytes": 3 * 2**30, "start_bytes": 2**30, "num_users": 9, "num_songs": 50}


def users(mean: float) -> dict[str, np.ndarray]:
    return {f"{part} {metric}@20": np.full(9, mean) for part in ("val", "test") for metric in ("recall", "ndcg")}


def described(**more: Any) -> dict[str, Any]:
    facts = dict.fromkeys(("data", "config", "machine", "threads", "load", "commit", "date", "command"), "x")
    return {**facts, "epochs": {"gat": 3}, "k": 20, "seeds": 1, "budget": 900.0, **more}


def test_seconds_to_a_bar_are_those_of_the_first_point_that_is_as_good(reporting: ModuleType) -> None:
    rows = [
        trained_row(reporting, "gat", [(5, 0.1), (9, 0.2), (14, 0.15), (20, 0.3)]),
        trained_row(reporting, "mf", [(1, 0.1), (2, 0.19)]),
        baseline_row(reporting, "item-knn-bm25", 3.5, 0.2),
        baseline_row(reporting, "ease", 221.0, 0.25),
    ]
    found = {row["name"]: row["seconds_to"] for row in reporting.report(described(), rows)["rows"]}
    assert found["gat"] == {"item-knn-bm25": [9], "ease": [20]}
    assert found["mf"] == {"item-knn-bm25": [None], "ease": [None]}
    assert found["ease"] == {"item-knn-bm25": [221.0], "ease": [221.0]}
    assert found["item-knn-bm25"] == {"item-knn-bm25": [3.5], "ease": [None]}


def test_each_seed_has_the_bar_of_its_own_users(reporting: ModuleType) -> None:
    bar = baseline_row(reporting, "ease", 1.0, 0.2, seeds=2)
    bar.runs[0]["watched"][1] = {"recall@20": 0.5, "ndcg@20": 0.4}
    gat = trained_row(reporting, "gat", [(5, 0.3)], [(7, 0.3)])
    report = reporting.report(described(seeds=2), [gat, bar])
    assert report["rows"][0]["seconds_to"] == {"ease": [5, None]}
    assert "1/2" in reporting.table(report)


def test_the_table_fits_a_terminal_whatever_happened(reporting: ModuleType) -> None:
    rows = [
        trained_row(reporting, "gat", [(1234.5, 0.3)], stopped="budget"),
        reporting.Row("pyg-gat", [], [], failed="failed (exit 1): " + "a long story " * 20),
        baseline_row(reporting, "recent-popularity", 0.01, 0.02),
        baseline_row(reporting, "item-knn-bm25", 3.5, 0.2),
        baseline_row(reporting, "ease", 2210.0, 0.25),
    ]
    report = reporting.report(described(), rows)
    lines = reporting.table(report).splitlines()
    assert max(map(len, lines)) <= 80
    assert "1234*" in lines[1]
    assert "a long story" in lines[2]
    assert any(line.startswith("* out of time") for line in lines)
    page = reporting.markdown(json.loads(json.dumps(report)))
    assert {row.count("|") for row in page.splitlines() if row.startswith("|")} == {11}
    assert reporting.picture(report).count("<svg") == 1


def test_a_report_without_one_row_that_went_well_is_still_a_report(reporting: ModuleType) -> None:
    report = reporting.report(described(), [reporting.Row("gat", [], [], failed="failed (exit 1): why")])
    assert "why" in reporting.table(report)
    assert "why" in reporting.markdown(report)
    assert "<svg" in reporting.picture(report)


def test_what_is_done_is_not_done_again_and_what_fails_says_why(script: Any, tmp_path: Path, monkeypatch) -> None:
    comparison, processes = script("comparison"), script("processes")
    plan = plan_of(comparison, ("popularity", "ease"), 1, 1, 9.0)
    done = tmp_path / "popularity-0"
    done.mkdir()
    (done / "measured.json").write_text(json.dumps({"fit_seconds": 1.0}))
    np.savez(done / "users.npz", x=np.ones(2))

    def fails(name: str, *_: Any) -> None:
        raise processes.ProcessFailed(["python"], 1, f"Traceback\n  at {tmp_path}/x\nOSError: {tmp_path}/y is full\n\n")

    monkeypatch.setattr(comparison, "run_row", fails)
    monkeypatch.setattr(comparison, "training_graph", lambda *_: tmp_path / "graph.pt")
    popularity, ease = comparison.measure_rows(plan, tmp_path)
    assert (popularity.runs, popularity.failed) == ([{"fit_seconds": 1.0}], "")
    assert ease.failed == "failed (exit 1): OSError: …/y is full"


def test_a_process_that_was_killed_is_a_row_that_says_so(script: Any, tmp_path: Path) -> None:
    failed = script("processes").ProcessFailed(["python"], -9, "a warning\n")
    assert (
        script("comparison").failure_reason(failed, tmp_path)
        == "failed (signal 9, perhaps not enough memory): it was ended"
    )


def test_without_the_data_the_made_up_log_is_compared_on(script: Any, tmp_path: Path, monkeypatch, capsys) -> None:
    comparison = script("comparison")
    monkeypatch.setenv("SONGGRAPH_BENCH_DATA", str(tmp_path))
    assert comparison.default_config() == "configs/synthetic-medium.toml"
    assert "SONGGRAPH_BENCH_DATA" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--seeds", "0"], "0 is given; it has to be a whole number of at least 1"),
        (["--rows", "bpr"], "invalid choice: 'bpr'"),
        (["--config", "configs/none.toml"], "The config file 'configs/none.toml' does not exist"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(given: list[str], says: str) -> None:
    command = [sys.executable, "benchmarks/comparison.py", *given]
    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert ended.returncode != 0
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_config_that_is_wrong_is_one_sentence(script: Any, tmp_path: Path, monkeypatch) -> None:
    comparison, processes = script("comparison"), script("processes")

    def fails(*_: Any) -> Path:
        raise processes.ProcessFailed(["python"], 1, "Traceback\ndata.errors.InputError: lr is -1; give more than 0.\n")

    monkeypatch.setattr(comparison, "training_graph", fails)
    plan = plan_of(comparison, ("popularity",), 1, 1, 9.0)
    with pytest.raises(SystemExit, match="lr is -1; give more than 0"):
        comparison.measure_rows(plan, tmp_path)


@pytest.mark.parametrize("change", ["machine", "commit", "code", "epochs"])
def test_rows_of_two_runs_do_not_meet(script: Any, monkeypatch, change: str) -> None:
    comparison = script("comparison")
    first = plan_of(comparison, ("gat",), 1, 1, 9.0)
    epochs = 2 if change == "epochs" else 1
    before = first.key()
    if change != "epochs":
        monkeypatch.setattr(comparison, change, lambda: "another")
    after = plan_of(comparison, ("gat", "mf"), 1, epochs, 9.0).key()
    assert before != after
    monkeypatch.undo()
    assert plan_of(comparison, ("gat", "mf"), 1, 1, 9.0).key() == before


def test_only_our_model_is_held_to_the_epochs_of_the_config(script: Any) -> None:
    comparison = script("comparison")
    plan = plan_of(comparison, ("gat", "mf"), 1, None, 9.0)
    epochs = plan.run.num_epochs
    assert [plan.epochs_of(name) for name in plan.rows] == [epochs, 10 * epochs]
    plan = plan_of(comparison, ("gat", "mf"), 1, 2, 9.0)
    assert [plan.epochs_of(name) for name in plan.rows] == [2, 2]


MODEL = {"embedding_dim": 8, "dropout": 0.1}
TRAINING = {"batch_size": 64, "num_negatives": 0, "eval_k": 5, "resume": False, "device": "cpu"}


def test_measuring_the_curve_changes_no_weight(script: Any, tiny_training_graph, tmp_path: Path, monkeypatch) -> None:
    comparison_row = script("comparison_row")
    monkeypatch.setattr(comparison_row, "FIRST_POINT", 0.0)
    monkeypatch.setattr(comparison_row, "GROWTH", 1.0)
    config = {**MODEL, **node_counts(tiny_training_graph)}
    timed, plain = (
        kind(model_config=config, training_config=TRAINING, output_dir=tmp_path / kind.__name__)
        for kind in (comparison_row.TimedTrainer, AdvancedTrainer)
    )
    for trainer in (timed, plain):
        trainer.train(tiny_training_graph, 2)
    assert all(torch.equal(a, b) for a, b in zip(timed.model.parameters(), plain.model.parameters(), strict=True))
    assert timed.history == plain.history
    assert len(timed.curve) > 2
    whole = [point["recall@5"] for point in timed.curve if point["whole_epoch"]]
    assert whole == [record["recall@5"] for record in plain.history]
    seconds = [point["seconds"] for point in timed.curve]
    assert seconds == sorted(seconds)


def test_a_row_stops_after_the_epoch_in_which_its_time_is_up(script: Any, tiny_training_graph, tmp_path: Path) -> None:
    comparison_row = script("comparison_row")
    config = {**MODEL, **node_counts(tiny_training_graph)}
    trainer = comparison_row.TimedTrainer(model_config=config, training_config=TRAINING, output_dir=tmp_path)
    trainer.budget = 0.0
    assert trainer.train(tiny_training_graph, 5)["epochs_run"] == 1
    assert trainer.why_stopped(5) == "budget"


def test_the_seconds_of_a_row_hold_no_test(script: Any, tiny_training_graph, tmp_path: Path, monkeypatch) -> None:
    comparison_row, asked = script("comparison_row"), []
    monkeypatch.setattr(AdvancedTrainer, "test", lambda trainer, graph: asked.append(trainer.output_dir) or {})
    monkeypatch.setattr(comparison_row, "small_graph", lambda graph: graph)
    monkeypatch.setattr(comparison_row.Clock, "training", property(lambda clock: 100.0 * len(asked)))
    chosen = Namespace(row="mf", seed=0, out=tmp_path, budget=math.inf, epochs=1)
    run = comparison_row.load_run_config("configs/synthetic.toml").model_copy(
        update={"model": MODEL, "training": TRAINING}
    )
    asked.clear()
    found = comparison_row.train_row(chosen, run, tiny_training_graph)
    assert found["training_seconds"] == 100.0  # one test, that of the warm-up


def test_an_architecture_gets_the_keys_that_it_knows(script: Any) -> None:
    model_config = script("comparison_row").model_config
    table = {"embedding_dim": 8, "heads": 2, "num_layers": 1, "local": False}
    assert model_config("gat", table) == {"architecture": "gat", **table}
    assert model_config("mf", table) == {"architecture": "mf", "embedding_dim": 8}
    assert model_config("lightgcn", table) == {"architecture": "lightgcn", "embedding_dim": 8, "num_layers": 1}


def test_the_graph_of_the_warm_up_is_smaller_and_has_its_masks(script: Any, tiny_training_graph, monkeypatch) -> None:
    comparison_row = script("comparison_row")
    monkeypatch.setattr(comparison_row, "WARM_UP_USERS", 5)
    small = comparison_row.small_graph(tiny_training_graph)
    assert small["user"].num_nodes == 5
    listens = tiny_training_graph[LISTENS]
    few = listens.edge_index[0] < 5
    assert small[LISTENS].edge_index.shape[1] == int(few.sum())
    assert torch.equal(small[LISTENS].train_mask, listens.train_mask[few])


def test_the_stock_model_sends_nothing_over_the_edges_of_a_batch(script: Any, tiny_training_graph) -> None:
    stock = script("stock_gat")
    graph = message_graph(tiny_training_graph)
    torch.manual_seed(0)
    config = stock.StockGATConfig(architecture="stock_gat:StockGAT", embedding_dim=8, dropout=0.0, **node_counts(graph))
    model = stock.StockGAT(config).eval()
    own = graph[LISTENS].edge_index[:, ::3]
    without = message_graph(tiny_training_graph)
    kept = torch.ones(graph[LISTENS].edge_index.shape[1], dtype=torch.bool)
    kept[::3] = False
    without[LISTENS].edge_index = graph[LISTENS].edge_index[:, kept]
    without[("song", "rev_listens", "user")].edge_index = without[LISTENS].edge_index.flip(0)
    for ours, wanted in zip(model.encode_without(graph, own), model.encode(without), strict=True):
        torch.testing.assert_close(ours, wanted)
    assert not torch.allclose(model.encode(graph).user, model.encode(without).user)


RESULTS = sorted((CHECKOUT / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize(
    "path", [path for path in RESULTS if path.stem != "trainer-claims"], ids=lambda path: path.stem
)
def test_results_say_where_they_are_from_and_nothing_private(path: Path, reporting: ModuleType) -> None:
    text = path.read_text(encoding="utf-8")
    found = json.loads(text)
    assert {"machine", "commit", "date", "config", "rows"} <= set(found)
    assert re.search(r"/(home|work|tmp|root|Users)/", text) is None
    assert path.with_suffix(".md").read_text(encoding="utf-8") == reporting.markdown(found)


@pytest.mark.slow
def test_a_run_leaves_table_page_and_picture_and_a_broken_row_stops_no_other(tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text('num_epochs = 1\n[synthetic]\npreset = "tiny"\n[training]\nnum_neighbors = [5]\n')
    command = [sys.executable, "benchmarks/comparison.py", "--config", str(config), "--results", str(tmp_path / "out")]
    ended = subprocess.run(
        [*command, "--rows", "gat", "mf", "popularity", "item-knn-bm25"],
        cwd=CHECKOUT, env={**os.environ, "SONGGRAPH_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "out" / "small.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert "num_neighbors" in rows["gat"]["failed"]
    assert rows["mf"]["runs"][0]["curve"]
    assert rows["popularity"]["test"]["ndcg@10"]["low"] < rows["item-knn-bm25"]["test"]["ndcg@10"]["high"]
    assert str(tmp_path) not in json.dumps(found)
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".md", ".svg"}
    shown = ended.stdout[ended.stdout.index("\nrow ") :].partition("\nwritten ")[0]
    assert max(map(len, shown.splitlines())) <= 80
