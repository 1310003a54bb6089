"""Make the training graph of a config for a benchmark, and check that the config's data is there."""

from __future__ import annotations

from pathlib import Path

from processes import environment, measure

from data.errors import InputError
from tasks.run_config import load_run_config

STAGES = """
import sys
from prefect import flow
from tasks.pipeline import pipeline, until
from tasks.run import Run
from tasks.run_config import load_run_config

@flow(name="prepared", persist_result=True, result_serializer="json")
def prepared(config):
    list(until("split", pipeline(Run(load_run_config(config)))))

prepared(sys.argv[1])
"""


def missing_data(config: str) -> str:
    """Return a sentence if the config's data is missing; else an empty text. A wrong config ends the benchmark."""
    try:
        run = load_run_config(config)
    except InputError as error:
        raise SystemExit(str(error)) from None
    try:
        if not run.uses_synthetic_log:
            run.log_files()
    except InputError as error:
        return str(error)
    return ""


def training_graph(config: str, home: Path) -> Path:
    """Run the stages up to the split in the project root ``home``; return the file of the training graph."""
    measure(["-c", STAGES, config], environment(home.resolve()))
    (path,) = (home / "artifacts" / "store" / "split").glob("*/training_graph.pt")
    return path
