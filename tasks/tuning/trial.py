"""Trains one trial as ``flows.train`` would, but measures it on validation alone, and reports each epoch to Optuna."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import InputError
from data.project import artifacts_folder
from tasks.tuning.study import SearchStudy, number_of

if TYPE_CHECKING:
    from optuna.trial import Trial

    from trainers.loop.training_results import EpochRecord


def train_trial(trial: Trial, study: SearchStudy, graph_file: Path) -> float:
    """Return the best value of the watched metric. A trial that was interrupted goes on from its last epoch.

    Args:
        graph_file: the graph without test listens; ``test`` of the trainer is not called.

    Raises:
        TrialPruned: the pruner ends the trial. It never ends the start, and no trial in its last epoch.
        InputError: the trainer refuses the values, or the metric is not a number in any epoch.
    """
    from data.graph import load_graph, node_counts
    from trainers.factory import create_trainer

    run, graph = study.space.run, load_graph(graph_file)
    tables = study.space.tables(study.values(trial))
    curves = artifacts_folder() / "tensorboard" / run.name / f"tune-{study.folder.name}-{number_of(trial)}"
    trainer = create_trainer(
        run.trainer, {**tables["model"], **node_counts(graph)}, tables["training"], checkpoints(trial, study), curves
    )
    metric = trainer.watched_metric()
    if metric is None:
        raise InputError(f"The trainer '{run.trainer}' watches no metric; set training.monitor to one.")
    trial.set_user_attr("metric", metric)
    reports = _EpochReports(trial, metric, study.num_epochs)
    trainer.epoch_callback, trainer.tests_at_end = reports.after_epoch, False
    results = trainer.train(graph, study.num_epochs)
    reports.report(results["history"])  # an interrupted trial may have had its last epoch already
    if results["best_metric"] is None:
        raise InputError(f"{metric} is no number in any epoch; lower lr or see its metrics.")
    trial.set_user_attr("best_epoch", results["best_epoch"])
    return results["best_metric"]


def checkpoints(trial: Trial, study: SearchStudy) -> Path:
    """Return the folder of the trial's checkpoints."""
    return study.folder / "trials" / str(number_of(trial))


class _EpochReports:
    """Reports each epoch to Optuna once; a trainer that goes on also gives the epochs before the interruption."""

    def __init__(self, trial: Trial, metric: str, num_epochs: int) -> None:
        self.trial, self.metric, self.reported = trial, metric, 0
        self.prunable_epochs = 0 if trial.user_attrs.get("start") else num_epochs - 1

    def report(self, history: Sequence[EpochRecord]) -> None:
        for record in history[self.reported :]:
            self.trial.report(record[self.metric], record["epoch"])
        self.reported = len(history)

    def after_epoch(self, history: Sequence[EpochRecord]) -> bool:
        from optuna import TrialPruned

        self.report(history)
        if self.reported <= self.prunable_epochs and self.trial.should_prune():
            raise TrialPruned
        return False
