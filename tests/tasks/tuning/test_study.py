"""tasks/tuning/study.py: no trial is lost or counted twice, wherever the processes of a search are killed."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState

from data.errors import InputError
from tasks.run_config import load_run_config
from tasks.tuning.space import SearchSpace, search_space
from tasks.tuning.study import KILLED, SearchStudy, TrialResult, number_of, require_optuna

EPOCHS = 5
KEYS = {"search": ["lr", "heads"], "trials": 4, "pruner": "none"}

OpenStudy = Callable[..., SearchStudy]


class Killed(BaseException):
    """Ends the process; nothing may catch it."""


def open_study(folder: Path, seed: int = 0, worker: int = 0, **tune: Any) -> SearchStudy:
    """Open the study as a worker does."""
    layer = {"num_epochs": EPOCHS, "training": {"seed": seed}, "tune": {**KEYS, **tune}}
    return SearchStudy(folder, search_space(load_run_config(None, layer)), worker)


@pytest.fixture
def started(tmp_path: Path) -> OpenStudy:
    """Open the study of this test as a search does that was just started, or started again."""

    def start(**tune: Any) -> SearchStudy:
        study = open_study(tmp_path, **tune)
        study.prepare()
        return study

    return start


def score(values: dict[str, Any]) -> float:
    """Greatest for a learning rate of 0.02 and many heads."""
    return values.get("heads", 0) / 100 - abs(values.get("lr", 0) - 0.02)


def finish(study: SearchStudy, trial: Trial, best: float | None = None, epochs: int = EPOCHS) -> None:
    """End a trial as a worker does: pruned if the pruner says so, else with its score."""
    best = score(study.values(trial)) if best is None else best
    trial.set_user_attr("metric", "recall@10")
    for epoch in range(1, epochs + 1):
        trial.report(best - 0.1 / epoch, epoch)
        if trial.should_prune() and not trial.user_attrs.get("start"):
            study.optuna.tell(trial, state=TrialState.PRUNED)
            return
    study.optuna.tell(trial, best)


def fail(study: SearchStudy, trial: Trial, why: str) -> None:
    trial.set_user_attr("failed", why)
    study.optuna.tell(trial, state=TrialState.FAIL)


def run_all(study: SearchStudy) -> list[TrialResult]:
    while trial := study.next_trial():
        finish(study, trial)
    return study.results()


def changed(results: list[TrialResult]) -> list[tuple[Any, ...]]:
    return [tuple(result.changed.items()) for result in results]


def test_the_config_as_it_is_comes_first_and_can_win(started: OpenStudy) -> None:
    results = run_all(started())
    assert len(results) == 4
    assert (results[0].number, results[0].is_start, results[0].changed) == (0, True, {})
    assert [result.is_start for result in results[1:]] == [False] * 3
    start = {"lr": 0.01, "heads": 4}
    assert started().ranking()[0].value == max(score({**start, **result.changed}) for result in results)


def test_a_restart_counts_what_is_finished_and_asks_for_the_rest(started: OpenStudy) -> None:
    first = started()
    for _ in range(2):
        finish(first, first.next_trial())
    again = started()
    assert len(again.results()) == 2
    assert len(run_all(again)) == 4
    assert started().next_trial() is None
    assert len(run_all(started(trials=6))) == 6


def test_a_trial_that_was_interrupted_is_run_again_under_its_number_with_its_values(started: OpenStudy) -> None:
    first = started()
    finish(first, first.next_trial())
    interrupted = first.next_trial()
    interrupted.report(0.1, 1)
    again = started()
    assert len(again.results()) == 1
    trial = again.next_trial()
    assert (number_of(trial), again.values(trial)) == (number_of(interrupted), first.values(interrupted))
    finish(again, trial, epochs=3)  # it reports all its epochs, also those before the interruption
    assert [(result.number, result.epochs) for result in again.results()] == [(0, EPOCHS), (1, 3)]


def test_a_trial_that_is_interrupted_again_and_again_is_still_one(started: OpenStudy) -> None:
    for _ in range(4):
        assert started().next_trial().user_attrs["start"]
    results = run_all(started())
    assert [result.is_start for result in results] == [True, False, False, False]
    assert len({result.number for result in results}) == 4


def test_two_workers_share_the_trials_and_run_none_too_many(started: OpenStudy, tmp_path: Path) -> None:
    started()
    workers = [open_study(tmp_path, worker=number) for number in (0, 1)]
    running = [(worker, worker.next_trial()) for worker in (*workers, *workers)]
    assert len({number_of(trial) for _, trial in running}) == 4
    assert sum(bool(trial.user_attrs.get("start")) for _, trial in running) == 1
    assert [worker.next_trial() for worker in workers] == [None, None]
    for worker, trial in running:
        finish(worker, trial)
    assert len(set(changed(workers[0].results()))) == 4


def test_the_same_seed_draws_the_same_values_and_another_seed_others(tmp_path: Path) -> None:
    found = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / folder).mkdir()
        study = open_study(tmp_path / folder, seed=seed, trials=12)
        study.prepare()
        found.append(changed(run_all(study)))
    assert found[0] == found[1]
    assert found[0] != found[2]


class Countdown:
    """Kills the process after so many writes to the database."""

    left = math.inf

    def around(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Killed
            return write(*args, **kwargs)

        return counted


@pytest.fixture
def countdown(monkeypatch: pytest.MonkeyPatch) -> Countdown:
    found = Countdown()
    for name in vars(RDBStorage):
        if name.startswith(("create_new", "set_")):
            monkeypatch.setattr(RDBStorage, name, found.around(getattr(RDBStorage, name)))
    return found


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.integers(0, 100), min_size=1, max_size=4), pruner=st.sampled_from(["none", "median"]))
def test_wherever_it_is_killed_each_trial_is_counted_once(
    countdown: Countdown, tmp_path_factory: pytest.TempPathFactory, kills: list[int], pruner: str
) -> None:
    folder = tmp_path_factory.mktemp("study")

    def run() -> list[TrialResult]:
        study = open_study(folder, trials=5, pruner=pruner)
        study.prepare()
        return run_all(study)

    finished: dict[int, TrialResult] = {}
    for writes in kills:
        countdown.left = writes
        with suppress(Killed):
            run()
        countdown.left = math.inf
        study = open_study(folder, trials=5, pruner=pruner)
        finished |= {result.number: result for result in study.results() if result.state != "failed"}
    results = {result.number: result for result in run()}
    assert finished.items() <= results.items()
    assert len(results) == len(study.results()) == 5
    assert len(set(changed(list(results.values())))) == 5
    assert {result.state for result in results.values()} <= {"complete", "pruned"}
    assert sum(result.is_start for result in results.values()) == 1


def test_no_values_are_tried_twice_and_the_search_ends_when_nothing_new_is_drawn(started: OpenStudy) -> None:
    few = {"search": ["num_layers", "heads"], "space": {"heads": [2, 4]}, "trials": 30}
    results = run_all(started(**few))
    assert len(set(changed(results))) == len(results) == 6
    again = started(**few)
    assert again.next_trial() is None
    assert len(again.results()) == 6


def test_values_that_do_not_go_together_are_neither_tried_nor_counted(started: OpenStudy) -> None:
    study = started(search=["embedding_dim", "heads"], space={"embedding_dim": [6, 32, 64]}, trials=30)
    start = study.space.start
    tried = [{**start, **result.changed} for result in run_all(study)]
    assert {(values["embedding_dim"], values["heads"]) for values in tried} == {
        (6, 1), (6, 2), *((dim, heads) for dim in (32, 64) for heads in (1, 2, 4, 8)),
    }  # fmt: skip


def test_a_space_of_which_nothing_is_allowed_ends_with_the_start(
    started: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = started()
    monkeypatch.setattr(SearchSpace, "refusal", lambda space, values: "these do not go together.")
    assert [result.is_start for result in run_all(study)] == [True]


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_trial_that_is_behind_the_others_is_ended_and_counted(started: OpenStudy, pruner: str) -> None:
    study = started(pruner=pruner, trials=40)
    for best in (*[0.5] * 10, *[0.1] * 4):
        finish(study, study.next_trial(), best)
    pruned = [result for result in study.results() if result.state == "pruned"]
    assert pruned
    assert all(result.epochs < EPOCHS for result in pruned)
    assert len(study.results()) == 14
    assert not {result.number for result in pruned} & {result.number for result in study.ranking()}


def test_a_trial_that_failed_counts_and_says_why(started: OpenStudy) -> None:
    study = started()
    finish(study, study.next_trial())
    fail(study, study.next_trial(), "The loss is nan.")
    (failed,) = [result for result in study.results() if result.state == "failed"]
    assert (failed.number, failed.why) == (1, "The loss is nan.")
    assert len(run_all(started())) == 4


def test_a_start_that_failed_is_tried_again_by_the_next_search(started: OpenStudy) -> None:
    first = started()
    fail(first, first.next_trial(), "The GPU is busy.")
    assert [(result.is_start, result.state) for result in first.results()] == [(True, "failed")]
    again = started()
    assert again.results() == []
    assert again.next_trial().user_attrs["start"]


def test_the_trial_of_a_worker_that_was_killed_counts_as_failed_until_the_next_search(
    started: OpenStudy, tmp_path: Path
) -> None:
    search = started()
    workers = [open_study(tmp_path, worker=number) for number in (0, 1)]
    finish(workers[0], workers[0].next_trial())
    running = [worker.next_trial() for worker in workers]
    assert search.fail_trial_of(1)
    assert not search.fail_trial_of(1)
    assert [(result.number, result.why) for result in search.results() if result.state == "failed"] == [(2, KILLED)]
    finish(workers[0], running[0])
    again = started()
    assert number_of(again.next_trial()) == 2


def test_a_start_outside_of_its_range_keeps_its_value(started: OpenStudy, tmp_path: Path) -> None:
    run = load_run_config(None, {"training": {"lr": 0.3}, "tune": {"search": ["lr"]}})
    study = SearchStudy(tmp_path, search_space(run))
    study.prepare()
    assert study.values(study.next_trial()) == {"lr": 0.3}


def test_importances_say_what_mattered_once_there_are_enough_trials(started: OpenStudy) -> None:
    study = started(trials=12)
    assert study.importances() == {}
    run_all(study)
    shares = study.importances()
    assert set(shares) == {"lr", "heads"}
    assert sum(shares.values()) == pytest.approx(1.0)


def test_a_damaged_file_is_named(started: OpenStudy, tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match=r"study.db cannot be read: it is damaged, .* Delete its folder"):
        started()


def test_without_optuna_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'songgraph\[tune\]'"):
        require_optuna()
