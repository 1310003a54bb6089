"""``python -m evaluation.audit``: what it prints, and the code it exits with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data.graph import LISTENS, save_graph
from evaluation.audit import __main__ as command
from evaluation.audit.result import Audit

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture
def run(made, tmp_path, monkeypatch, capsys):
    """Run the command on ``made``'s graphs; gives the exit code, what it printed, and its errors."""
    save_graph(made.whole, tmp_path / "graph.pt")
    pq.write_table(made.listens, tmp_path / "listens.parquet")
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> tuple[int, str, str]:
        save_graph(made.graph, tmp_path / "training_graph.pt")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["audit", *arguments])
        with pytest.raises(SystemExit) as ended:
            command.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), " ".join(printed.out.split()), printed.err

    return run


def test_a_clean_graph_and_trainer(run, tmp_path) -> None:
    arguments = ("training_graph.pt", "--listens", ".", "--model", "lightgcn", "--output", "audit.json")
    code, printed, errors = run(*arguments)
    assert (code, errors) == (0, "")
    assert "LEAK" not in printed
    assert printed.count("clean") == 12
    assert "pairs planted; sample of 40 users, 30 songs" in printed
    kept = Audit.read(tmp_path / "audit.json")
    assert kept.passed
    assert kept.canary.passed


def test_a_leak_is_one_sentence_and_an_exit_code(run, made, tmp_path) -> None:
    made.graph[LISTENS].weight[made.graph[LISTENS].val_mask] = 1
    code, printed, errors = run("training_graph.pt", "--trainer", "", "--output", "audit.json")
    leaking = int(made.graph[LISTENS].val_mask.sum())
    assert code == 1
    assert printed.count("LEAK") == 1
    assert errors == (
        f"The audit refuses to train: Values on held-out edges that are not zero: {leaking} (listens.weight); "
        "they tell what is hidden.\n"
    )
    assert not Audit.read(tmp_path / "audit.json").passed


def test_a_graph_without_masks(run) -> None:
    code, printed, errors = run("graph.pt")
    assert (code, errors) == (0, "")
    assert "Cannot say: Nothing is held out in this graph, so nothing can leak inside it" in printed
    assert "canary" not in printed


def test_a_trainer_that_trains_on_everything(run) -> None:
    code, printed, _ = run("training_graph.pt", "--trainer", "simple")
    assert code == 0
    assert "The trainer trains on everything, held-out pairs included: its numbers are in-sample" in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere.pt"], "There is no graph at nowhere.pt; build it with `python -m flows.build_graph`."),
        (
            ["training_graph.pt", "--listens", "nowhere"],
            "nowhere has no readable listens.parquet; give the folder of the ingest stage.",
        ),
    ],
)
def test_a_mistake_is_one_sentence(run, arguments: list[str], sentence: str) -> None:
    assert run(*arguments) == (1, "", f"{sentence}\n")


@pytest.mark.slow
def test_it_runs_as_a_module_in_eighty_columns(made, tmp_path) -> None:
    save_graph(made.whole, tmp_path / "graph.pt")
    ended = subprocess.run(
        [sys.executable, "-m", "evaluation.audit", str(tmp_path / "graph.pt")],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert max(map(len, ended.stdout.splitlines())) <= 80
