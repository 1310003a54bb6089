"""One trial of a search, in a process of its own; ``tasks.tune_child`` starts ``python -m tasks.tune_trial FOLDER``.

A process, because a trainer draws from torch's one random stream and takes torch's one pool of threads. It tells its
parent of each epoch in a line of JSON, waits for the answer, and ends where there is nobody left to answer.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock

from data.errors import InputError

Hear = Callable[[list[tuple[int, float]]], bool]
"""Takes epoch and watched metric of all epochs so far; True ends the trial."""

JOB, LOCK = "job.json", "lock"


@dataclass(frozen=True)
class Job:
    """What a trial does.

    Attributes:
        model: with the node counts.
        graph: file of the graph without test listens.
        folder: of the trial's checkpoints.
        tensorboard: folder of its curves.
    """

    trainer: str
    model: dict[str, Any]
    training: dict[str, Any]
    num_epochs: int
    graph: str
    folder: str
    tensorboard: str


@dataclass(frozen=True)
class Outcome:
    """What came of a trial: the best value of the watched metric, or in a sentence why there is none."""

    metric: str
    value: float | None
    best_epoch: int | None = None
    refused: str = ""


def train(job: Job, hear: Hear) -> Outcome:
    """Train as ``flows.train`` does, but on validation alone: the graph has no test listens, and nothing is tested."""
    from data.graph import load_graph
    from trainers.factory import create_trainer

    watched = None
    try:
        trainer = create_trainer(job.trainer, job.model, job.training, job.folder, job.tensorboard)
        watched = trainer.watched_metric()
        if watched is None:
            raise InputError(f"The trainer '{job.trainer}' watches no metric; set training.monitor to one.")
        trainer.epoch_callback = lambda history: hear([(record["epoch"], record[watched]) for record in history])
        trainer.tests_at_end = False
        results = trainer.train(load_graph(Path(job.graph)), job.num_epochs)
    except InputError as error:
        return Outcome(watched or "", None, refused=str(error))
    return Outcome(watched, results["best_metric"], results["best_epoch"])


def main(arguments: Sequence[str]) -> None:
    """Run the job in the folder; what the trainer prints goes to standard error, beside the talk with the parent."""
    said, sys.stdout = sys.stdout, sys.stderr
    folder = Path(arguments[0])
    job = Job(**json.loads((folder / JOB).read_text(encoding="utf-8")))
    with FileLock(folder / LOCK):  # the trial of a killed search may still be in its last epoch here
        outcome = train(job, lambda curve: _answer(said, sys.stdin, curve))
    _say(said, {"outcome": asdict(outcome)})


def _answer(said: TextIO, answers: TextIO, curve: list[tuple[int, float]]) -> bool:
    try:
        _say(said, {"curve": curve})
    except BrokenPipeError:
        os._exit(1)  # the parent is gone
    answer = answers.readline()
    if not answer:
        os._exit(1)
    return answer == "stop\n"


def _say(said: TextIO, what: dict[str, Any]) -> None:
    print(json.dumps(what), file=said, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
