"""tasks/tuning/worker.py: a worker runs trials until none is left, and ends with the search."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from tasks.tuning.study import SearchStudy
from tasks.tuning.worker import work

CHECKOUT = Path(__file__).resolve().parents[3]
MakeStudy = Callable[..., SearchStudy]


def test_a_worker_runs_all_trials_and_leaves_no_checkpoint(make_study: MakeStudy) -> None:
    study = make_study()
    work(study.folder, 0)
    assert [(result.number, result.state) for result in study.results()] == [
        (number, "complete") for number in range(3)
    ]
    assert study.ranking()[0].value == max(trial.value for trial in study.optuna.get_trials())
    assert not list(study.folder.rglob("*.pt"))


def test_a_trial_that_the_trainer_refuses_fails_and_the_worker_goes_on(make_study: MakeStudy) -> None:
    study = make_study(space={"lr": [1e30, 0.02]})
    work(study.folder, 0)
    results = {result.changed.get("lr", "start"): result for result in study.results()}
    assert {lr: result.state for lr, result in results.items()} == {
        "start": "complete",
        1e30: "failed",
        0.02: "complete",
    }
    assert "The loss is inf in epoch 1" in results[1e30].why


@pytest.mark.slow
def test_a_worker_holds_its_lock_and_ends_when_the_search_has_ended(make_study: MakeStudy) -> None:
    study = make_study(num_epochs=100_000)
    command = [sys.executable, "-m", "tasks.tuning.worker", str(study.folder), "0"]
    worker = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE)
    while not list(study.folder.rglob("checkpoint-*.pt")):
        assert worker.poll() is None
        time.sleep(0.05)
    with pytest.raises(Timeout), FileLock(study.folder / "worker-0.lock", timeout=0):
        pass
    assert worker.stdin is not None
    worker.stdin.close()  # as the end of the search does, however it ends
    assert worker.wait(timeout=20) == 1
    with FileLock(study.folder / "worker-0.lock", timeout=0):
        pass
