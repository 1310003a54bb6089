"""Wraps the Optuna study of a search: which trial comes next, which trials have ended, which trial is the best."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from data.errors import InputError
from tasks.tuning.space import SearchSpace, Values

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial, Trial

STUDY_NAME = "tune"
MOST_DRAWS = 50
"""A search is over after this many draws in a row that are not allowed or were tried before."""
FEWEST_FOR_IMPORTANCE = 10
SECONDS_FOR_THE_DATABASE = 60
"""A process waits this long for another one that writes to the database."""
KILLED = "Its process was killed; it may have needed too much memory."


@dataclass(frozen=True)
class TrialResult:
    """A trial that has ended.

    Attributes:
        number: stays the same if the trial was interrupted and run again.
        state: complete, pruned or failed.
        changed: the values that differ from the config as it is.
        is_start: the trial is the config as it is.
        why: the reason of a failed trial.
    """

    number: int
    state: str
    metric: str
    value: float | None
    changed: Values
    is_start: bool
    best_epoch: int | None
    epochs: int
    why: str


class SearchStudy:
    """The study in ``folder/study.db``. The search and its workers each open it.

    A trial counts once, when it has ended: complete, pruned or failed. A draw that is not run, because its values are
    not allowed or were tried before, is stored as pruned without an epoch and does not count.

    Args:
        space: the keys and their values.
        worker: number of the process; each process draws other values.

    Attributes:
        optuna: Optuna's own study.
        num_trials, num_epochs: trials that were asked for, and most epochs of each.
        seed: of all trainings; also decides, with one worker and no interruption, which values are drawn.
    """

    def __init__(self, folder: Path, space: SearchSpace, worker: int = 0) -> None:
        from trainers.factory import parse_training_config

        run = space.run
        self.folder, self.space, self.worker = folder, space, worker
        self.num_trials, self.num_epochs = run.tune.trials, run.tune.num_epochs or run.num_epochs
        self.seed = parse_training_config(run.trainer, run.training).seed
        self.optuna = _open(folder / "study.db", _pruner(run.tune.pruner, self.num_epochs))
        self.optuna.sampler = _sampler([self.seed, worker, len(self.optuna.get_trials(deepcopy=False))])

    def prepare(self) -> None:
        """Enqueue the config as it is first, and enqueue interrupted trials again.

        Call it before any worker runs: what is still marked as running then belongs to a search that was killed.
        """
        from optuna.storages import RetryHeartbeatStaleTrialCallback
        from optuna.trial import TrialState

        for trial in self.optuna.get_trials(states=(TrialState.RUNNING,)):
            self.optuna.tell(trial.number, state=TrialState.FAIL)
        enqueue_again = RetryHeartbeatStaleTrialCallback()
        for trial in self._ended():
            if trial.state == TrialState.FAIL and ("failed" not in trial.user_attrs or _is_start(trial)):
                enqueue_again(self.optuna, trial)
        if not any(_is_start(trial) for trial in self.optuna.get_trials(deepcopy=False)):
            self.optuna.enqueue_trial({key.name: key.nearest() for key in self.space.keys}, {"start": True})

    def next_trial(self) -> Trial | None:
        """Return the next trial to run; None if enough trials ran or run, or if nothing new was drawn."""
        from optuna.trial import TrialState

        with FileLock(self.folder / "next_trial.lock"):  # SQLite could give one queued trial to two processes
            for _ in range(MOST_DRAWS if self._missing() > 0 else 0):
                trial = self.optuna.ask({key.name: key.distribution() for key in self.space.keys})
                trial.set_user_attr("number", number_of(trial))
                trial.set_user_attr("worker", self.worker)
                if self._is_new(trial):
                    return trial
                self.optuna.tell(trial, state=TrialState.PRUNED)
        return None

    def fail_trial_of(self, worker: int) -> bool:
        """Count the trial of a worker that was killed as failed; False if the worker ran none."""
        from optuna.trial import TrialState

        running = self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        interrupted = [trial for trial in running if trial.user_attrs.get("worker") == worker]
        for trial in interrupted:
            self.optuna.tell(trial.number, state=TrialState.FAIL)
        return bool(interrupted)

    def values(self, trial: Trial | FrozenTrial) -> Values:
        """Return the values that a trial trains with."""
        if _is_start(trial):
            return self.space.start
        return {key.name: key.rounded(trial.params[key.name]) for key in self.space.keys if key.name in trial.params}

    def results(self) -> list[TrialResult]:
        """Return all trials that have ended, in the order of their numbers."""
        return sorted(map(self._result, self._ended()), key=lambda result: result.number)

    def ranking(self) -> list[TrialResult]:
        """Return the complete trials, the best first; of two equal ones, the earlier first."""
        complete = [(-result.value, result) for result in self.results() if result.value is not None]
        return [result for _, result in sorted(complete, key=lambda pair: pair[0])]

    def importances(self) -> dict[str, float]:
        """Return each key's share of the difference between good trials and others; empty if there are too few trials.

        Source: Watanabe et al., "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
        Subspaces", IJCAI 2023.
        """
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

        ranking = self.ranking()
        values = {result.value for result in ranking}
        if len(ranking) < FEWEST_FOR_IMPORTANCE or len(values) == 1 or len(self.space.keys) == 1:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(get_param_importances(self.optuna, evaluator=PedAnovaImportanceEvaluator()))

    def _missing(self) -> int:
        """Return how many trials neither ran nor run."""
        from optuna.trial import TrialState

        running = self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return self.num_trials - len(self._ended()) - len(running)

    def _is_new(self, trial: Trial) -> bool:
        """Return True for the start, and for allowed values that no other trial has."""
        if _is_start(trial):
            return True
        unfinished = [other for other in self.optuna.get_trials(deepcopy=False) if not other.state.is_finished()]
        others = [other for other in (*self._ended(), *unfinished) if other.number != trial.number]
        values = self.values(trial)
        return values not in map(self.values, others) and self.space.refusal(values) is None

    def _ended(self) -> list[FrozenTrial]:
        """Return the trials that count: ended, not run again later, and not skipped."""
        from optuna.storages import RetryHeartbeatStaleTrialCallback

        trials = self.optuna.get_trials()
        run_again = {number for trial in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(trial)}
        return [t for t in trials if t.state.is_finished() and t.number not in run_again and not _is_skipped(t)]

    def _result(self, trial: FrozenTrial) -> TrialResult:
        values, start = self.values(trial), self.space.start
        return TrialResult(
            number=number_of(trial),
            state={"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed"),
            metric=trial.user_attrs.get("metric", ""),
            value=trial.value if trial.state.name == "COMPLETE" else None,
            changed={name: value for name, value in values.items() if value != start[name]},
            is_start=_is_start(trial),
            best_epoch=trial.user_attrs.get("best_epoch"),
            epochs=max(trial.intermediate_values, default=0),
            why=trial.user_attrs.get("failed", KILLED) if trial.state.name == "FAIL" else "",
        )


def require_optuna() -> None:
    """Raise InputError, with the command that installs Optuna, if it is missing; keep it quiet otherwise."""
    try:
        import optuna
    except ImportError:
        raise InputError(
            "A search needs Optuna, which is not installed; install it with `pip install 'songgraph[tune]'`, "
            "or with `pip install -e '.[tune]'` in a checkout."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def number_of(trial: Trial | FrozenTrial) -> int:
    """Return the number that people see: a trial that is run again keeps the number of its first run."""
    return int(trial.user_attrs.get("number", trial.number))


def _open(path: Path, pruner: BasePruner) -> Study:
    import optuna
    from sqlalchemy.exc import DatabaseError

    try:
        wait = {"connect_args": {"timeout": SECONDS_FOR_THE_DATABASE}}
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs=wait)
        return optuna.create_study(
            study_name=STUDY_NAME, storage=storage, pruner=pruner, direction="maximize", load_if_exists=True
        )
    except (DatabaseError, optuna.exceptions.StorageInternalError, RuntimeError) as error:  # also of another version
        raise InputError(
            f"The search at {path} cannot be read: it is damaged, or another version of Optuna wrote it. Delete its "
            "folder to begin anew."
        ) from error


def _pruner(name: str, num_epochs: int) -> BasePruner:
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if name == "hyperband":
        return HyperbandPruner(max_resource=num_epochs)
    # the first fifth of a curve says more about the learning rate than about where it leads
    return MedianPruner(n_warmup_steps=num_epochs // 5 + 1) if name == "median" else NopPruner()


def _sampler(seeds: list[int]) -> Any:
    from optuna.samplers import TPESampler

    return TPESampler(seed=int(np.random.SeedSequence(seeds).generate_state(1)[0]))


def _is_start(trial: Trial | FrozenTrial) -> bool:
    return bool(trial.user_attrs.get("start"))


def _is_skipped(trial: FrozenTrial) -> bool:
    return trial.state.name == "PRUNED" and not trial.intermediate_values
