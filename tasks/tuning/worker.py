"""Runs trial after trial in a process of its own: ``python -m tasks.tuning.worker FOLDER NUMBER``.

The search starts several workers, which share the study and nothing else. A worker takes the next trial, trains it and
stores its result, until no trial is left. It ends as soon as the search ends, also if the search is killed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from data.errors import InputError
from tasks.run_config import RunConfig
from tasks.tuning.space import search_space
from tasks.tuning.study import SearchStudy, require_optuna
from tasks.tuning.trial import checkpoints, train_trial

SPEC = "search.json"
STDIN = 0  # the file descriptor


def work(folder: Path, number: int) -> None:
    """Run trials of the search in ``folder`` until none is left."""
    from optuna import TrialPruned
    from optuna.trial import TrialState

    require_optuna()
    spec = json.loads((folder / SPEC).read_text(encoding="utf-8"))
    study = SearchStudy(folder, search_space(RunConfig.parse(spec["run"], SPEC)), number)
    while trial := study.next_trial():
        try:
            value = train_trial(trial, study, Path(spec["graph"]))
            study.optuna.tell(trial, value)
        except TrialPruned:
            study.optuna.tell(trial, state=TrialState.PRUNED)
        except InputError as error:
            trial.set_user_attr("failed", str(error))
            study.optuna.tell(trial, state=TrialState.FAIL)
        shutil.rmtree(checkpoints(trial, study), ignore_errors=True)


def main(arguments: Sequence[str]) -> None:
    folder, number = Path(arguments[0]), int(arguments[1])
    threading.Thread(target=_end_with_the_search, daemon=True).start()
    with FileLock(folder / f"worker-{number}.lock"):  # the next search waits until this worker is gone
        work(folder, number)


def _end_with_the_search() -> None:
    """End this process when the search ends: this closes the pipe, also if the search is killed."""
    os.read(STDIN, 1)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
