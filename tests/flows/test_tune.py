"""The search: what it writes runs, what it refuses it says in a sentence, and a kill costs it nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from flows.command_line import command
from flows.train import train
from flows.tune import OPTIONS, tune
from flows.tune_summary import print_search
from tasks.run_config import load_run_config
from tasks.tuning.worker import work
from trainers.advanced import AdvancedTrainer

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIG = """# python -m flows.train --config configs/small.toml
name = "small"
num_epochs = 2
baselines = "none"

[synthetic]
preset = "tiny"

[model]
architecture = "lightgcn"
embedding_dim = 8

[training]
num_eval_users = 1000

[tune]
trials = 3
search = ["lr", "temperature"]
"""

Search = Callable[..., str]


@pytest.fixture
def config(home: Path) -> Path:
    path = home / "configs" / "small.toml"
    path.parent.mkdir()
    path.write_text(CONFIG, encoding="utf-8")
    return path


class Here:
    """A worker in this process, which has ended once it is there."""

    def __init__(self, folder: Path, number: int, jobs: int) -> None:
        work(folder, number)

    def poll(self) -> int:
        return 0


@pytest.fixture
def search(
    prefect_api: str, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Search:
    """Run ``flows.tune`` on the small config, its worker in this process; gives what it printed."""
    monkeypatch.setattr("tasks.tuning.search.start_worker", Here)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*options: str) -> str:
        given = ["--config", str(config), "--jobs", "1", *options]
        command(tune, OPTIONS, print_search)(given, standalone_mode=False)
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(search: Search, capsys: pytest.CaptureFixture[str]) -> Search:
    """The sentence with which a search ends that it cannot do."""

    def run(*options: str) -> str:
        with pytest.raises(SystemExit) as ended:
            search(*options)
        told = capsys.readouterr().err
        assert ended.value.code == 2, told
        assert "Traceback" not in told
        last = told.strip().splitlines()[-1]
        assert last.startswith("Error: ")
        assert told.count("Error: ") == 1
        return last

    return run


def trials(home: Path) -> list[Any]:
    """All trials of the studies in ``home``, as Optuna has them."""
    import optuna

    found = sorted((home / "artifacts" / "tune").rglob("study.db"))
    studies = [optuna.load_study(study_name="tune", storage=f"sqlite:///{path}") for path in found]
    return [trial for study in studies for trial in study.get_trials()]


def finished(home: Path) -> list[Any]:
    return [trial for trial in trials(home) if trial.state.name in ("COMPLETE", "PRUNED")]


def test_a_search_ends_with_a_config_that_trains_to_the_value_it_was_chosen_for(
    search: Search, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_test(trainer: AdvancedTrainer, graph: object) -> dict[str, float]:
        raise AssertionError("test listens were measured")

    with monkeypatch.context() as searching:
        searching.setattr(AdvancedTrainer, "test", no_test)
        told = search("--set", "training.monitor=ndcg@10")
    assert all(len(line) <= 80 for line in told.splitlines() if not line.startswith(("Winner", "Run it")))
    assert "3 trials: 3 complete" in told
    assert "(the start)" in told

    path = home / "configs" / "small-tuned.toml"
    best = max(trial.value for trial in trials(home))
    assert f"ndcg@10 {best:.4f}" in path.read_text(encoding="utf-8")
    state = train(config=str(path), return_state=True)
    stages = {stage["stage"]: stage for stage in state.result()["stages"]}
    assert stages["train"]["counts"]["best_metric"] == best
    assert stages["split"]["cached"], "both flows have the same stages"


@pytest.mark.slow
def test_the_first_trial_is_the_config_as_it_is_and_no_checkpoint_is_left(search: Search, home: Path) -> None:
    search()
    start = trials(home)[0]
    assert start.params == {"lr": 0.01, "temperature": 0.1}
    assert not list((home / "artifacts" / "tune").rglob("*.pt"))
    state = train(config=str(home / "configs" / "small.toml"), return_state=True)
    stages = {stage["stage"]: stage for stage in state.result()["stages"]}
    assert stages["train"]["counts"]["best_metric"] == start.value


@pytest.mark.slow
def test_more_trials_go_on_and_another_config_begins_anew(search: Search, home: Path) -> None:
    search("--trials", "2")
    search("--trials", "3", "--force")
    assert len(finished(home)) == 3
    assert len({trial.params["lr"] for trial in finished(home)}) == 3
    search("--trials", "2", "--force", "--seed", "7")
    assert len(finished(home)) == 5


@pytest.mark.slow
def test_trials_may_have_fewer_epochs_than_the_config_that_is_written(search: Search, home: Path) -> None:
    search("--trials", "2", "--set", "tune.num_epochs=1")
    assert [len(trial.intermediate_values) for trial in finished(home)] == [1, 1]
    assert load_run_config(home / "configs" / "small-tuned.toml").num_epochs == 2


@pytest.mark.slow
def test_a_custom_trainer_is_searched_pruned_and_not_tested(
    search: Search, home: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text(CUSTOM, encoding="utf-8")
    search(
        "--trainer", "mine:Mine", "--search", "quality", "--trials", "12", "--epochs", "5",
        "--set", "training.monitor=quality",
    )  # fmt: skip
    states = [trial.state.name for trial in trials(home)]
    assert states.count("COMPLETE") >= 6
    assert "PRUNED" in states
    best = max(finished(home), key=lambda trial: trial.value if trial.state.name == "COMPLETE" else -1)
    tuned = load_run_config(home / "configs" / "small-tuned.toml")
    assert tuned.training["quality"] == pytest.approx(best.params["quality"], rel=5e-3)


CUSTOM = """
from typing import Annotated, ClassVar

from data.search import Range
from trainers.base import BaseTrainer
from trainers.config import TrainingConfig
from trainers.sampling import train_pairs


class MineConfig(TrainingConfig):
    quality: Annotated[float, Range(0.0, 1.0)] = 0.5


class Mine(BaseTrainer):
    Config: ClassVar = MineConfig

    def train_epoch(self, graph):
        return self.train_on_pairs(graph, train_pairs(graph)[:, :64])

    def evaluate(self, graph):
        return {"quality": self.config.quality * self.current_epoch}

    def test(self, graph):
        raise AssertionError("test listens were measured")
"""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--search", "lrr"), "have no key 'lrr'. Did you mean 'lr'?"),
        (("--search", "heads"), "have no key 'heads'"),
        (("--search", "patience"), "'patience' has no search space; give tune.space.patience"),
        (("--search", "seed"), "'seed' cannot be searched"),
        (("--set", "tune.space.lr=5"), "tune.space.lr is 5; give a list of choices"),
        (("--set", "tune.trails=5"), "tune has the unknown key 'trails'"),
        (("--pruner", "best"), "tune.pruner is 'best'"),
        (("--trainer", "simple"), "trains on all listens, so nothing is left to choose on"),
        (("--trainer", "advancd"), "Did you mean 'advanced'?"),
        (("--output", str(CHECKOUT / "configs")), "is a folder; give --output the name of a file"),
        (("--output", str(CHECKOUT / "configs" / "synthetic.toml")), "synthetic.toml exists; give --output another"),
        (("--set", "training.monitor=recal@10"), "The watched metric 'recal@10' does not exist; set monitor to one of"),
        (("--set", "training.warm_start=champion"), "trainings that start alike, from random weights; remove"),
        (("--set", "training.val_ratio=0.0"), "leaves no validation listens"),
    ],
)
def test_what_cannot_be_searched_is_said_in_a_sentence(
    refused: Search, options: tuple[str, ...], sentence: str
) -> None:
    assert sentence in refused(*options)


def test_without_optuna_the_command_says_what_to_install(refused: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'songgraph[tune]'" in refused()


@pytest.mark.slow
def test_a_search_that_is_finished_or_runs_already_is_not_started(search: Search, refused: Search, home: Path) -> None:
    search()
    assert "small-tuned.toml exists; give --output another name, or --force" in refused()
    assert "No trial is left to run: 3 of 3 are finished" in refused("--force")
    (study,) = (home / "artifacts" / "tune" / "small").glob("*/study.db")
    with FileLock(study.parent / "lock"):
        assert "This search is running already" in refused("--force", "--trials", "4")


@pytest.mark.slow
def test_a_trial_that_fails_does_not_end_the_search(search: Search, home: Path) -> None:
    told = search("--search", "lr", "--set", "tune.space.lr=[1e30]")
    assert "2 trials: 1 complete, 1 failed" in told
    assert load_run_config(home / "configs" / "small-tuned.toml").training.get("lr", 0.01) == 0.01


# In processes of their own


class Started:
    """``flows.tune`` in a process group of its own."""

    def __init__(self, config: Path, said: Path, api: str, *options: str) -> None:
        self.said = said
        variables = {**os.environ, "PREFECT_API_URL": api, "NO_COLOR": "1", "COLUMNS": "80"}
        command = [sys.executable, "-m", "flows.tune", "--config", str(config), *options]
        with said.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env=variables,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests may run in a background
            )

    def has_said(self, words: str) -> bool:
        return re.search(words, self.said.read_text(encoding="utf-8"), re.MULTILINE) is not None

    def wait_for(self, there: Callable[[], object]) -> None:
        ends = time.monotonic() + 120
        while not there():
            assert self.process.poll() is None, self.said.read_text(encoding="utf-8")
            assert time.monotonic() < ends, self.said.read_text(encoding="utf-8")
            time.sleep(0.02)


def in_training(home: Path) -> list[Path]:
    """Checkpoints of trials that have ended their first epoch, and not their last."""
    return list((home / "artifacts" / "tune").rglob("checkpoint-*.pt"))


def workers_of(home: Path) -> list[str]:
    """Command lines of the workers that run in ``home``."""
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in running.splitlines() if str(home / "artifacts" / "tune") in line]


@pytest.mark.slow
def test_a_killed_search_goes_on_and_no_trial_is_lost_or_counted_twice(
    prefect_api: str, config: Path, home: Path, tmp_path: Path
) -> None:
    options = ("--trials", "3", "--jobs", "2", "--epochs", "30", "--pruner", "none", "--patience", "1000")
    killed = Started(config, tmp_path / "first", prefect_api, *options)
    killed.wait_for(lambda: killed.has_said(r"^trial ") and in_training(home))
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait(timeout=10)
    ends = time.monotonic() + 60
    while workers_of(home):
        assert time.monotonic() < ends, "a killed search leaves workers behind"
        time.sleep(0.05)
    before = {trial.number: trial for trial in finished(home)}
    running = [trial for trial in trials(home) if trial.state.name == "RUNNING"]
    assert before
    assert running

    again = Started(config, tmp_path / "second", prefect_api, *options)
    assert again.process.wait(timeout=180) == 0, again.said.read_text(encoding="utf-8")
    assert f"{len(before)} of 3 trials are finished" in again.said.read_text(encoding="utf-8")
    after = finished(home)
    assert len(after) == 3
    assert len({json.dumps(trial.params) for trial in after}) == 3
    assert before.items() <= {trial.number: trial for trial in after}.items()
    values = {trial.user_attrs["number"]: trial.params for trial in after}
    assert {trial.number: trial.params for trial in running}.items() <= values.items()
    assert all(len(trial.intermediate_values) == 30 for trial in after)
    assert (home / "configs" / "small-tuned.toml").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code", "jobs"), [(signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 1)])
def test_a_stopped_search_ends_its_trials_and_says_that_it_goes_on(
    prefect_api: str, config: Path, home: Path, tmp_path: Path, number: int, code: int, jobs: int
) -> None:
    run = Started(
        config, tmp_path / "said", prefect_api, "--jobs", str(jobs), "--epochs", "100000", "--patience", "100000"
    )
    run.wait_for(lambda: len(in_training(home)) == jobs)
    run.process.send_signal(number)
    assert run.process.wait(timeout=60) == code
    said = run.said.read_text(encoding="utf-8")
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("Stopped. Finished stages and epochs are kept")
    assert not workers_of(home)
