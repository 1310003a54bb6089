"""A trial: trained as ``flows.train`` trains, but on validation alone, and ended by whoever listens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch_geometric.data import HeteroData

from data.graph import LISTENS, save_graph
from data.machine import cores
from data.validation_graph import without_test
from tasks.tune_child import Children, Stopped, threads_of_a_trial
from tasks.tune_trial import JOB, Job, Outcome, train
from trainers.advanced import AdvancedTrainer
from trainers.base import BaseTrainer
from trainers.factory import create_trainer
from trainers.sampling import train_pairs

CHECKOUT = Path(__file__).resolve().parents[2]
TRAINING = {"batch_size": 64, "num_eval_users": 20, "eval_k": 5, "device": "cpu", "patience": 100}


class Plain(BaseTrainer):
    """A custom trainer that inherits from the base alone; its ``test`` would look at anything."""

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        return self.train_on_pairs(graph, train_pairs(graph))

    def evaluate(self, graph: HeteroData) -> dict[str, float]:
        assert not graph[LISTENS].test_mask.any()
        return self.ranking_metrics(graph, "val")

    def test(self, graph: HeteroData) -> dict[str, float]:
        raise AssertionError("test listens were measured")


@pytest.fixture
def job(tiny_training_graph: HeteroData, tmp_path: Path) -> Job:
    """Two epochs on the graph without test listens."""
    save_graph(without_test(tiny_training_graph), tmp_path / "validation_graph.pt")
    (tmp_path / "trial").mkdir()
    counts = {f"num_{kind}s": tiny_training_graph[kind].num_nodes for kind in ("user", "song", "artist")}
    model = {"architecture": "lightgcn", "embedding_dim": 8, **counts}
    paths = [str(tmp_path / name) for name in ("validation_graph.pt", "trial", "curves")]
    return Job("advanced", model, TRAINING, 2, *paths)


def listen(curves: list[list[tuple[int, float]]], until: int = 1000) -> Callable[[list[tuple[int, float]]], bool]:
    """A listener that keeps what it hears and ends the trial in epoch ``until``."""

    def hear(curve: list[tuple[int, float]]) -> bool:
        curves.append(curve)
        return len(curve) >= until

    return hear


def test_a_trial_is_worth_what_the_same_training_is_worth_on_validation(
    job: Job, tiny_training_graph: HeteroData, tmp_path: Path
) -> None:
    curves: list[list[tuple[int, float]]] = []
    outcome = train(job, listen(curves))
    trainer = create_trainer("advanced", job.model, job.training, tmp_path / "other")
    results = trainer.train(tiny_training_graph, 2)
    assert outcome == Outcome("recall@5", results["best_metric"], results["best_epoch"])
    assert curves[-1] == [(record["epoch"], record["recall@5"]) for record in results["history"]]
    assert [len(curve) for curve in curves] == [1, 2]


@pytest.mark.parametrize("trainer", ["advanced", "plain"])
def test_no_trainer_tests_in_a_trial(job: Job, trainer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.names._registered", {"plain": Plain})
    monkeypatch.setattr(AdvancedTrainer, "test", Plain.test)
    training = {"eval_k": 5, "monitor": "ndcg@5", "device": "cpu"}
    outcome = train(replace(job, trainer=trainer, training=training), listen([]))
    assert outcome.metric == "ndcg@5"
    assert outcome.value is not None


def test_a_trainer_of_ones_own_is_ended_by_the_listener_too(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.names._registered", {"plain": Plain})
    curves: list[list[tuple[int, float]]] = []
    plain = replace(job, trainer="plain", training={"eval_k": 5, "monitor": "recall@5"}, num_epochs=50)
    train(plain, listen(curves, until=3))
    assert len(curves) == 3


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"monitor": "recal@5"}, "The watched metric 'recal@5' does not exist; set monitor to one of recall@5"),
        ({"eval_k": 10_000}, "eval_k"),
        ({"lr": 1e30}, "The loss is inf in epoch 1"),
    ],
)
def test_what_the_trainer_refuses_is_the_outcome(job: Job, training: dict, sentence: str) -> None:
    outcome = train(replace(job, training={**TRAINING, **training}), listen([]))
    assert outcome.value is None
    assert sentence in outcome.refused


def test_a_trainer_that_watches_nothing_cannot_be_searched(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.names._registered", {"plain": Plain})
    outcome = train(replace(job, trainer="plain", training={}), listen([]))
    assert outcome.refused == "The trainer 'plain' watches no metric; set training.monitor to one."


def test_cores_are_divided_among_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_of_a_trial(1) == cores()
    assert threads_of_a_trial(10 * cores()) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads_of_a_trial(1) == 1


@pytest.mark.slow
def test_a_killed_trial_is_told_of_goes_on_from_its_last_epoch_and_heeds_the_listener(job: Job, tmp_path: Path) -> None:
    there: list[list[tuple[int, float]]] = []
    children, job = Children(threads=1), replace(job, num_epochs=20)

    def kill_in_the_third_epoch(curve: list[tuple[int, float]]) -> bool:
        if len(curve) == 3:
            (child,) = children._running
            os.kill(child.pid, signal.SIGKILL)
        return False

    assert "killed by signal 9" in children.run(job, kill_in_the_third_epoch).refused
    outcome = children.run(job, listen(there, until=5))
    assert [len(curve) for curve in there] == [3, 4, 5]

    here: list[list[tuple[int, float]]] = []
    train(replace(job, folder=str(tmp_path / "here"), tensorboard=str(tmp_path / "curves here")), listen(here, until=5))
    assert there == here[2:]
    assert outcome.value == max(value for _, value in here[-1])


@pytest.mark.slow
def test_what_the_listener_raises_and_the_end_of_the_search_end_a_running_trial(job: Job) -> None:
    children, endless = Children(threads=1), replace(job, num_epochs=100_000)

    def leave(curve: list[tuple[int, float]]) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        children.run(endless, leave)
    assert not children._running

    first_epoch, ended = threading.Event(), []

    def hear(curve: list[tuple[int, float]]) -> bool:
        first_epoch.set()
        return False

    def run() -> None:
        try:
            children.run(endless, hear)
        except Stopped:
            ended.append(Stopped)

    thread = threading.Thread(target=run)
    thread.start()
    assert first_epoch.wait(60)
    children.end()
    thread.join(20)
    assert ended == [Stopped]
    with pytest.raises(Stopped):
        children.run(job, hear)


def test_a_trial_that_breaks_shows_why(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'TypeError: no number' >&2\nexit 1\n")
    broken.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(RuntimeError, match=r"(?s)A trial broke.*TypeError: no number"):
        Children(threads=1).run(job, listen([]))


@pytest.mark.slow
def test_a_trial_ends_where_nobody_listens_any_more(job: Job) -> None:
    (Path(job.folder) / JOB).write_text(json.dumps({**job.__dict__, "num_epochs": 100_000}), encoding="utf-8")
    command = [sys.executable, "-m", "tasks.tune_trial", job.folder]
    child = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert "curve" in child.stdout.readline()
    child.stdin.close()  # what the death of the parent does
    assert child.wait(timeout=20) == 1
