"""A search's memory: an Optuna study in a SQLite file, which a killed process leaves in a state to go on from."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.errors import InputError
from data.search import Choices
from tasks.tune_config import TuneConfig
from tasks.tune_space import SearchedKey, SearchSpace, Values
from tasks.tune_trial import Outcome

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial, Trial

MOST_DRAWS = 20
"""Draws in a row that may be of no use: a combination that is not allowed, or one that was tried."""

FEWEST_FOR_IMPORTANCE = 10

Curve = Sequence[tuple[int, float]]
"""Epoch and watched metric, from the first epoch on."""


@dataclass
class Candidate:
    """A trial that is to be run, or is running.

    Attributes:
        number: of its first try; a trial that a kill interrupted keeps it.
        is_start: whether it is the config as it is.
        heard: epochs that the study knows already.
    """

    trial: Trial
    number: int
    values: Values
    is_start: bool
    heard: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Tried:
    """A finished trial, as people are told of it. ``state`` is complete, pruned or failed."""

    number: int
    state: str
    metric: str
    value: float | None
    values: Values
    is_start: bool
    best_epoch: int | None
    epochs: int
    why: str


class SearchStudy:
    """What has been tried, what to try next, and which of it is finished. Safe to use from several threads.

    Each change is one transaction. A trial is counted once it is finished: complete, pruned, or failed for a reason
    that would come again. Those that a killed process left running are put in line again under their old number.

    Args:
        folder: of ``study.db``; one process at a time.
        seed: with one trial at a time and the median pruner, the same seed gives the same search, killed or not.
        num_epochs: that a trial may take.

    Attributes:
        ran: trials that were finished through this object.
    """

    def __init__(self, folder: Path, space: SearchSpace, tune: TuneConfig, num_epochs: int, seed: int) -> None:
        self.space, self.tune, self.seed, self.num_epochs = space, tune, seed, num_epochs
        self.ran = 0
        self._lock = threading.RLock()
        self._study = _open(folder / "study.db", _pruner(tune.pruner, num_epochs))
        self._recover()
        self._enqueue_start()

    # What to try

    def next(self) -> Candidate | None:
        """The next trial, of values that were not tried yet; None where every combination was.

        Raises:
            InputError: draw after draw is not allowed.
        """
        with self._lock:
            for _ in range(MOST_DRAWS):
                candidate = self._draw()
                reason = self._why_not(candidate)
                if reason is None:
                    return candidate
                self._skip(candidate, reason)
            return self._untried(reason)

    def left(self) -> int:
        """How many of the trials that were asked for are not finished."""
        return max(0, self.tune.trials - len(self.tried()))

    # What came of it

    def hear(self, candidate: Candidate, curve: Curve) -> bool:
        """Take a running trial's curve; True where the pruner ends it: never the start, and none in its last epoch."""
        with self._lock:
            for epoch, value in curve:
                if epoch not in candidate.heard:
                    candidate.trial.report(value, epoch)
                    candidate.heard.add(epoch)
            at_its_end = max(candidate.heard) >= self.num_epochs
            if candidate.is_start or at_its_end or not candidate.trial.should_prune():
                return False
            candidate.trial.set_user_attr("stopped", True)
            return True

    def finish(self, candidate: Candidate, outcome: Outcome) -> Tried:
        """Count a trial: pruned where ``hear`` ended it, else with its value, or failed where it has none."""
        from optuna.trial import TrialState

        with self._lock:
            candidate.trial.set_user_attr("best_epoch", outcome.best_epoch)
            candidate.trial.set_user_attr("metric", outcome.metric)
            self.ran += 1
            if candidate.trial.user_attrs.get("stopped"):
                found = self._study.tell(candidate.trial, state=TrialState.PRUNED)
            elif outcome.value is None:
                candidate.trial.set_user_attr("failed", outcome.refused or "it has no value")
                found = self._study.tell(candidate.trial, state=TrialState.FAIL)
            else:
                found = self._study.tell(candidate.trial, outcome.value)
            return _told(found)

    def tried(self) -> list[Tried]:
        """All that are finished, in the order of their numbers."""
        with self._lock:
            found = [_told(trial) for trial in self._trials() if _is_counted(trial)]
        return sorted(found, key=lambda tried: tried.number)

    def ranking(self) -> list[Tried]:
        """The complete ones, best first; of equals the earlier one."""
        complete = [tried for tried in self.tried() if tried.state == "complete"]
        return sorted(complete, key=lambda tried: -tried.value if tried.value is not None else 0.0)  # a stable sort

    def importances(self) -> dict[str, float]:
        """Share of the differences between good trials and others that each key explains; empty for too few trials.

        Source: Watanabe et al., "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
        Subspaces", IJCAI 2023.
        """
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

        values = {tried.value for tried in self.ranking()}
        if len(self.ranking()) < FEWEST_FOR_IMPORTANCE or len(values) == 1 or len(self.space.keys) == 1:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(get_param_importances(self._study, evaluator=PedAnovaImportanceEvaluator()))

    # Drawing

    def _draw(self) -> Candidate:
        self._study.sampler = _sampler(self.seed, sum("retry_of" not in trial.user_attrs for trial in self._trials()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self._study.ask({key.name: _distribution(key) for key in self.space.keys})
        values = trial.user_attrs.get("values")
        if values is None:
            values = {key.name: key.rounded(trial.params[key.name]) for key in self.space.keys}
            trial.set_user_attr("values", values)
        return Candidate(trial, _number(trial), values, bool(trial.user_attrs.get("start")))

    def _why_not(self, candidate: Candidate) -> str | None:
        if candidate.is_start:
            return None
        others = [trial for trial in self._trials() if trial.number != candidate.trial.number and _stands(trial)]
        if any(trial.user_attrs.get("values") == candidate.values for trial in others):
            return "these values were tried"
        return self.space.refusal(candidate.values)

    def _skip(self, candidate: Candidate, reason: str) -> None:
        from optuna.trial import TrialState

        candidate.trial.set_user_attr("skipped", reason)
        self._study.tell(candidate.trial, state=TrialState.FAIL)

    def _untried(self, reason: str | None) -> Candidate | None:
        """A combination that was not tried, where they can be listed."""
        combinations = self.space.combinations()
        if combinations is None:
            raise InputError(
                f"{MOST_DRAWS} draws in a row cannot be tried, the last one because {reason} Narrow tune.space to "
                "values that go together."
            )
        tried = [trial.user_attrs.get("values") for trial in self._trials() if _stands(trial)]
        left = [values for values in combinations if values not in tried]
        if not left:
            return None
        chosen = left[int(np.random.default_rng([self.seed, len(left)]).integers(len(left)))]
        self._study.enqueue_trial(self._parameters(chosen), {"values": chosen})
        return self._draw()

    def _parameters(self, values: Values) -> dict[str, Any]:
        """Values as Optuna takes them, inside of its distributions."""
        return {key.name: key.nearest(values[key.name]) for key in self.space.keys}

    # Start and restart

    def _enqueue_start(self) -> None:
        if not any(trial.user_attrs.get("start") for trial in self._trials()):
            start = self.space.start
            self._study.enqueue_trial(self._parameters(start), {"start": True, "values": start})

    def _recover(self) -> None:
        """Put in line again what a killed process left running, or count it where its end was noted already."""
        from optuna.trial import TrialState

        retried = {trial.user_attrs.get("retry_of") for trial in self._trials()}
        for trial in [trial for trial in self._trials() if trial.state == TrialState.RUNNING]:
            noted = {"stopped", "failed"} & set(trial.user_attrs)
            if not noted and trial.number not in retried:  # a kill may have come between the next two steps, too
                again = {**trial.user_attrs, "retry_of": trial.number, "number": _number(trial)}
                self._study.enqueue_trial(trial.params, again)
            self._study.tell(trial.number, state=TrialState.PRUNED if "stopped" in noted else TrialState.FAIL)

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)


def require_optuna() -> None:
    """Raise InputError, with the command that helps, where Optuna is not installed; keep it quiet where it is."""
    try:
        import optuna
    except ImportError:
        raise InputError(
            "A search needs Optuna, which is not installed; install it with `pip install 'songgraph[tune]'`, "
            "or with `pip install -e '.[tune]'` in a checkout."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _open(path: Path, pruner: BasePruner) -> Study:
    import optuna
    from sqlalchemy.exc import DatabaseError

    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        return optuna.create_study(
            study_name="tune", storage=storage, pruner=pruner, direction="maximize", load_if_exists=True
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


def _sampler(seed: int, drawn: int) -> Any:
    """A sampler for one draw. Its stream hangs on the seed and the number of draws, so a restart repeats none."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=int(np.random.SeedSequence([seed, drawn]).generate_state(1)[0]))


def _distribution(key: SearchedKey) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space = key.space
    if isinstance(space, Choices):
        return CategoricalDistribution(space.values)
    if key.whole:
        return IntDistribution(int(space.low), int(space.high), log=space.log)
    return FloatDistribution(space.low, space.high, log=space.log)


def _number(trial: Trial | FrozenTrial) -> int:
    return int(trial.user_attrs.get("number", trial.number))


def _is_counted(trial: FrozenTrial) -> bool:
    failed = trial.state.name == "FAIL" and "failed" in trial.user_attrs
    return failed or trial.state.name in ("COMPLETE", "PRUNED")


def _stands(trial: FrozenTrial) -> bool:
    """Whether its values are tried, being tried or in line; not those of one that was skipped or put in line again."""
    return trial.state.name in ("RUNNING", "WAITING") or _is_counted(trial)


def _told(trial: FrozenTrial) -> Tried:
    attributes = trial.user_attrs
    return Tried(
        number=_number(trial),
        state={"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed"),
        metric=attributes.get("metric", ""),
        value=trial.value,
        values=attributes["values"],
        is_start=bool(attributes.get("start")),
        best_epoch=attributes.get("best_epoch"),
        epochs=max(trial.intermediate_values, default=0),
        why=attributes.get("failed", ""),
    )
