"""A search's memory: no trial is lost or counted twice, wherever the process that asks for trials is killed."""

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
from optuna.trial import Trial

from data.errors import InputError
from tasks.run_config import load_run_config
from tasks.tune_config import TuneConfig
from tasks.tune_space import search_space
from tasks.tune_study import Candidate, SearchStudy, Tried, require_optuna
from tasks.tune_trial import Outcome

EPOCHS = 5
KEYS = {"search": ["lr", "heads"], "space": {}}


class Killed(BaseException):
    """The process is gone; nothing may catch it."""


def open_study(folder: Path, seed: int = 0, tune: dict[str, Any] | None = None) -> SearchStudy:
    space = search_space(load_run_config(None, {"tune": {**KEYS, **(tune or {})}}))
    config = TuneConfig.parse({"trials": 4, "pruner": "none", **(tune or {})}, "tune")
    return SearchStudy(folder, space, config, EPOCHS, seed)


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., SearchStudy]:
    """Open the study of this test; again, it is what a restarted process finds."""

    def make(seed: int = 0, **tune: Any) -> SearchStudy:
        return open_study(tmp_path, seed, tune)

    return make


def score(values: dict[str, Any]) -> float:
    """Greatest for a learning rate of 0.02 and many heads."""
    return values.get("heads", 0) / 100 - abs(values.get("lr", 0) - 0.02)


def run_trial(study: SearchStudy, candidate: Candidate) -> Tried:
    """A trial whose curve rises to its score."""
    best = score(candidate.values)
    for epoch in range(1, EPOCHS + 1):
        if study.hear(candidate, [(past, best - 0.1 / past) for past in range(1, epoch + 1)]):
            break
    return study.finish(candidate, Outcome("recall@10", best, EPOCHS))


def run_all(study: SearchStudy) -> list[Tried]:
    while study.left() and (candidate := study.next()):
        run_trial(study, candidate)
    return study.tried()


def test_the_config_as_it_is_comes_first_and_can_win(study: Callable[..., SearchStudy]) -> None:
    tried = run_all(study())
    assert len(tried) == 4
    assert (tried[0].number, tried[0].is_start, tried[0].values) == (0, True, {"lr": 0.01, "heads": 4})
    assert [one.is_start for one in tried[1:]] == [False] * 3
    assert study().ranking()[0].value == max(score(one.values) for one in tried)


def test_a_restart_counts_what_is_finished_and_asks_for_the_rest(study: Callable[..., SearchStudy]) -> None:
    first = study()
    for _ in range(2):
        run_trial(first, first.next())
    again = study()
    assert (len(again.tried()), again.left()) == (2, 2)
    assert len(run_all(again)) == 4
    assert study().left() == 0
    assert len(run_all(study(trials=6))) == 6


def test_a_trial_that_was_running_is_repeated_under_its_number_with_its_values(
    study: Callable[..., SearchStudy],
) -> None:
    first = study()
    run_trial(first, first.next())
    running = first.next()
    first.hear(running, [(1, 0.1), (2, 0.2)])
    again = study()
    assert len(again.tried()) == 1
    resumed = again.next()
    assert (resumed.number, resumed.values) == (running.number, running.values)
    again.hear(resumed, [(1, 0.1), (2, 0.2), (3, 0.3)])  # a resumed trainer tells of all epochs
    again.finish(resumed, Outcome("recall@10", 0.3, 3))
    assert [(one.number, one.epochs) for one in again.tried()] == [(0, EPOCHS), (running.number, 3)]


def test_a_trial_killed_again_and_again_is_still_one(study: Callable[..., SearchStudy]) -> None:
    for _ in range(4):
        assert study().next().is_start
    tried = run_all(study())
    assert [one.is_start for one in tried] == [True, False, False, False]
    assert len({one.number for one in tried}) == 4


@pytest.mark.slow
def test_the_same_seed_gives_the_same_search_killed_or_not(tmp_path: Path) -> None:
    def values(folder: str, kills: bool) -> list[dict[str, Any]]:
        (tmp_path / folder).mkdir()
        for _ in range(40):
            found = open_study(tmp_path / folder, seed=3, tune={"trials": 12})
            if not found.left():
                return [one.values for one in found.tried()]
            if kills:
                found.next()  # and the process is gone
                found = open_study(tmp_path / folder, seed=3, tune={"trials": 12})
                run_trial(found, found.next())
            else:
                run_all(found)
        raise AssertionError("it does not end")

    assert values("killed", kills=True) == values("whole", kills=False)


def test_another_seed_is_another_search(tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        found.append([one.values for one in run_all(open_study(tmp_path / str(seed), seed))])
    assert found[0][0] == found[1][0]
    assert found[0][1:] != found[1][1:]


class Countdown:
    """Kills the process after so many writes to the database."""

    left = math.inf

    def pass_one(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed

    def around(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.pass_one()
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
    tune = {"trials": 5, "pruner": pruner}
    for writes in kills:
        countdown.left = writes
        with suppress(Killed):
            run_all(open_study(folder, tune=tune))
    countdown.left = math.inf
    tried = run_all(open_study(folder, tune=tune))
    assert len(tried) == 5
    assert len({one.number for one in tried}) == 5
    assert len({tuple(one.values.items()) for one in tried}) == 5
    assert sum(one.is_start for one in tried) == 1


def test_no_values_are_tried_twice_and_the_search_ends_when_all_were(study: Callable[..., SearchStudy]) -> None:
    tried = run_all(study(search=["num_layers", "heads"], space={"heads": [2, 4]}, trials=30))
    assert len({tuple(one.values.items()) for one in tried}) == len(tried) == 6
    again = study(search=["num_layers", "heads"], space={"heads": [2, 4]}, trials=30)
    assert again.next() is None
    assert len(again.tried()) == 6


def test_values_that_do_not_go_together_are_neither_tried_nor_counted(study: Callable[..., SearchStudy]) -> None:
    tried = run_all(study(search=["embedding_dim", "heads"], space={"embedding_dim": [6, 32]}, trials=30))
    assert {(one.values["embedding_dim"], one.values["heads"]) for one in tried} == {
        (6, 1), (6, 2), (32, 1), (32, 2), (32, 4), (32, 8),
    }  # fmt: skip


def test_a_space_of_which_nothing_can_be_drawn_is_refused(
    study: Callable[..., SearchStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = study(search=["lr"])
    run_trial(found, found.next())
    monkeypatch.setattr(type(found.space), "refusal", lambda space, values: "these do not go together.")
    with pytest.raises(InputError, match="20 draws in a row cannot be tried, the last one because these do not go"):
        found.next()


def curve(value: float, epochs: int = EPOCHS) -> list[tuple[int, float]]:
    return [(epoch, value) for epoch in range(1, epochs + 1)]


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_trial_that_is_behind_the_others_is_ended_and_counted(study: Callable[..., SearchStudy], pruner: str) -> None:
    found = study(pruner=pruner, trials=40)

    def run(value: float) -> Tried:
        candidate = found.next()
        any(found.hear(candidate, curve(value, epoch)) for epoch in range(1, EPOCHS + 1))
        return found.finish(candidate, Outcome("recall@10", value, 1))

    for _ in range(10):
        run(0.5)
    pruned = [one for one in (run(0.1) for _ in range(4)) if one.state == "pruned"]
    assert pruned
    assert all(one.epochs < EPOCHS for one in pruned)
    assert len(found.tried()) == 14
    assert not {one.number for one in pruned} & {one.number for one in found.ranking()}


def test_a_trial_that_the_pruner_ended_stays_ended_when_the_process_is_killed_at_once(
    study: Callable[..., SearchStudy],
) -> None:
    found = study(pruner="median", trials=40)
    for _ in range(8):
        candidate = found.next()
        found.hear(candidate, curve(0.5))
        found.finish(candidate, Outcome("recall@10", 0.5, 1))
    behind = found.next()
    assert found.hear(behind, curve(0.1, EPOCHS - 1))
    again = study(pruner="median", trials=40)
    assert [(one.number, one.state) for one in again.tried()][-1] == (behind.number, "pruned")


def test_the_start_is_never_pruned(study: Callable[..., SearchStudy], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "should_prune", lambda trial: True)
    found = study()
    start, second = found.next(), found.next()
    assert not found.hear(start, curve(0.1, 1))
    assert found.hear(second, curve(0.1, 1))


def test_a_trial_that_got_to_its_last_epoch_is_complete(
    study: Callable[..., SearchStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trial, "should_prune", lambda trial: True)
    found = study()
    run_trial(found, found.next())
    assert not found.hear(found.next(), curve(0.1, EPOCHS))


def test_a_trial_without_a_value_is_counted_as_failed_with_the_reason(study: Callable[..., SearchStudy]) -> None:
    found = study()
    run_trial(found, found.next())
    failed = found.finish(found.next(), Outcome("recall@10", None, refused="The loss is nan."))
    assert (failed.state, failed.why, found.left()) == ("failed", "The loss is nan.", 2)
    assert study().left() == 2


def test_a_start_outside_of_its_range_keeps_its_value(tmp_path: Path) -> None:
    run = load_run_config(None, {"training": {"lr": 0.3}, "tune": {"search": ["lr"]}})
    found = SearchStudy(tmp_path, search_space(run), TuneConfig(), EPOCHS, 0)
    assert found.next().values == {"lr": 0.3}


def test_importances_say_what_mattered_once_there_are_enough_trials(study: Callable[..., SearchStudy]) -> None:
    found = study(trials=12)
    assert found.importances() == {}
    run_all(found)
    shares = found.importances()
    assert set(shares) == {"lr", "heads"}
    assert sum(shares.values()) == pytest.approx(1.0)


def test_a_damaged_file_is_named(study: Callable[..., SearchStudy], tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match=r"study.db cannot be read: it is damaged, .* Delete its folder"):
        study()


def test_without_optuna_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'songgraph\[tune\]'"):
        require_optuna()
