"""tasks/tuning/trial.py: a trial trains as ``flows.train`` does, but on validation alone, until the pruner ends it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna import TrialPruned
from optuna.trial import Trial
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import LISTENS, node_counts
from tasks.tuning.study import SearchStudy
from tasks.tuning.trial import train_trial
from tests.tasks.tuning.conftest import TRAINING
from trainers.advanced import AdvancedTrainer
from trainers.base import BaseTrainer
from trainers.factory import create_trainer
from trainers.loop.checkpoint import CheckpointFile
from trainers.sampling import train_pairs

MakeStudy = Callable[..., SearchStudy]


class Plain(BaseTrainer):
    """A custom trainer that inherits from the base alone; its ``test`` would look at anything."""

    def train_epoch(self, graph: HeteroData) -> dict[str, float]:
        return self.train_on_pairs(graph, train_pairs(graph))

    def evaluate(self, graph: HeteroData) -> dict[str, float]:
        assert not graph[LISTENS].test_mask.any()
        return self.ranking_metrics(graph, "val")

    def test(self, graph: HeteroData) -> dict[str, float]:
        raise AssertionError("test listens were measured")


def curve(study: SearchStudy, number: int) -> dict[int, float]:
    return study.optuna.get_trials()[number].intermediate_values


def test_a_trial_is_worth_what_the_same_training_is_worth_on_validation(
    make_study: MakeStudy, graph_file: Path, tiny_training_graph: HeteroData, tmp_path: Path
) -> None:
    study = make_study()
    value = train_trial(study.next_trial(), study, graph_file)
    model = {"architecture": "lightgcn", "embedding_dim": 8, **node_counts(tiny_training_graph)}
    results = create_trainer("advanced", model, TRAINING, tmp_path / "other").train(tiny_training_graph, 2)
    assert value == results["best_metric"]
    assert curve(study, 0) == {record["epoch"]: record["recall@5"] for record in results["history"]}
    found = study.optuna.get_trials()[0].user_attrs
    assert (found["metric"], found["best_epoch"]) == ("recall@5", results["best_epoch"])


@pytest.mark.parametrize("trainer", ["advanced", "plain"])
def test_no_trainer_tests_in_a_trial(
    make_study: MakeStudy, graph_file: Path, trainer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.names._registered", {"plain": Plain})
    monkeypatch.setattr(AdvancedTrainer, "test", Plain.test)
    study = make_study(trainer, {"eval_k": 5, "monitor": "ndcg@5", "device": "cpu"})
    assert train_trial(study.next_trial(), study, graph_file) > 0
    assert study.optuna.get_trials()[0].user_attrs["metric"] == "ndcg@5"


@pytest.mark.parametrize("trainer", ["advanced", "plain"])
def test_the_pruner_ends_a_trial_but_never_the_start_and_none_in_its_last_epoch(
    make_study: MakeStudy, graph_file: Path, trainer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.names._registered", {"plain": Plain})
    study = make_study(trainer, {"eval_k": 5, "monitor": "recall@5", "device": "cpu"}, num_epochs=3)
    pruned_from = 2
    monkeypatch.setattr(Trial, "should_prune", lambda trial: len(curve(study, trial.number)) >= pruned_from)
    train_trial(study.next_trial(), study, graph_file)
    with pytest.raises(TrialPruned):
        train_trial(study.next_trial(), study, graph_file)
    pruned_from = 3
    train_trial(study.next_trial(), study, graph_file)
    assert [len(curve(study, number)) for number in range(3)] == [3, 2, 3]


class Killed(BaseException):
    """Ends the process; nothing may catch it."""


def kill(checkpoint: CheckpointFile) -> None:
    raise Killed


def kill_in_epoch_3(trainer: AdvancedTrainer, *metrics: dict[str, float]) -> bool:
    if trainer.current_epoch == 3:
        raise Killed
    return False


@pytest.mark.parametrize(
    ("killed_at", "epochs_left"),
    [((AdvancedTrainer, "on_epoch_end", kill_in_epoch_3), [3]), ((CheckpointFile, "finish", kill), [])],
    ids=["in an epoch", "after the last epoch"],
)
def test_an_interrupted_trial_goes_on_from_its_last_epoch_and_reports_all(
    make_study: MakeStudy, graph_file: Path, monkeypatch: pytest.MonkeyPatch, killed_at: Any, epochs_left: list[int]
) -> None:
    early = {**TRAINING, "patience": 2, "lr": 1e-9}
    study = make_study(training=early, num_epochs=20)
    value = train_trial(study.next_trial(), study, graph_file)
    assert len(curve(study, 0)) == 3, "the trainer stops early"
    whole = curve(study, 0)
    shutil.rmtree(study.folder)

    study = make_study(training=early, num_epochs=20)
    with monkeypatch.context() as patch:
        patch.setattr(*killed_at)
        with pytest.raises(Killed):
            train_trial(study.next_trial(), study, graph_file)
    epochs: list[int] = []
    monkeypatch.setattr(AdvancedTrainer, "on_epoch_start", lambda trainer: epochs.append(trainer.current_epoch))
    study = make_study(training=early, num_epochs=20)
    assert train_trial(study.next_trial(), study, graph_file) == value
    assert epochs == epochs_left
    assert curve(study, 1) == whole


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"monitor": "recal@5"}, "The watched metric 'recal@5' does not exist; set monitor to one of recall@5"),
        ({"eval_k": 10_000}, "eval_k"),
        ({"lr": 1e30}, "The loss is inf in epoch 1"),
    ],
)
def test_a_trial_that_the_trainer_refuses_says_why(
    make_study: MakeStudy, graph_file: Path, training: dict[str, Any], sentence: str
) -> None:
    study = make_study(training={**TRAINING, **training})
    with pytest.raises(InputError) as refused:
        train_trial(study.next_trial(), study, graph_file)
    assert sentence in str(refused.value)


def test_a_trainer_that_watches_nothing_cannot_be_searched(
    make_study: MakeStudy, graph_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.names._registered", {"plain": Plain})
    study = make_study("plain", {})
    with pytest.raises(InputError, match=r"The trainer 'plain' watches no metric; set training.monitor to one\."):
        train_trial(study.next_trial(), study, graph_file)
