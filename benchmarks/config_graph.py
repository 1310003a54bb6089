"""Make the training graph of a config for a benchmark, and check that the config's data is there."""

from __future__ import annotations

from pathlib import Path

from processes import environment, measure

from data.errors import InputError
from tasks.run_config import load_run_config

STAGES = """
import sys
from prefect import flow
from tasks.run_config import load_run_config
from tasks.stages.graph import build_graph
from tasks.stages.ingest import find_log, ingest
from tasks.stages.split import split

@flow(name="prepared", persist_result=True, result_serializer="json")
def prepared(config):
    run = load_run_config(config)
    listens = ingest(run, find_log(run))
    split(run, build_graph(run, listens), listens)

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
