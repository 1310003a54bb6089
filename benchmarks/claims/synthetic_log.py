"""Make a synthetic log and its graph, on which claims are measured."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from machine import CHECKOUT
from torch_geometric.data import HeteroData

from data.events.ingest import ingest
from data.events.ingest_config import IngestConfig
from data.events.log_files import find_files
from data.graph import build_graph
from data.split import SplitConfig
from data.synthetic.log import SyntheticConfig, event_tables, write_log
from data.training_graph import split_graph
from evaluation.audit.auditor import read_listens
from tasks.run_config import RunConfig, load_run_config


class LogGraph(NamedTuple):
    """The whole graph of a log, and the ingest folder from which it was built."""

    whole: HeteroData
    listens: Path

    def split(self, config: SplitConfig) -> HeteroData:
        """Split the graph; return the training graph."""
        return split_graph(self.whole, config, read_listens(self.listens))


def default_run() -> RunConfig:
    """Load the config of ``make train``."""
    return load_run_config(CHECKOUT / "configs" / "synthetic.toml")


def synthetic_graph(log: SyntheticConfig, folder: Path) -> LogGraph:
    """Make a log in a folder and build its graph."""
    write_log(log, folder / "log")
    return build_from_events(folder / "log" / "*.parquet", folder)


def graph_without_last_days(days: int, folder: Path) -> LogGraph:
    """Build the graph of the log of ``make train`` without its last days."""
    events = pa.concat_tables(event_tables(SyntheticConfig()))
    until = pc.max(events["played_at"]).as_py() - timedelta(days=days)
    is_before = pc.less_equal(events["played_at"], pa.scalar(until, events.schema.field("played_at").type))
    folder.mkdir(parents=True)
    pq.write_table(events.filter(is_before), folder / "events.parquet")
    return build_from_events(folder / "events.parquet", folder)


def build_from_events(events: Path, folder: Path) -> LogGraph:
    """Build the graph of event files, given as a path or a glob."""
    config = IngestConfig.parse({"events": [str(events)]}, "ingest")
    listens = folder / "listens"
    listens.mkdir(parents=True)
    ingest(config, listens, find_files(config))
    return LogGraph(build_graph(listens), listens)


def default_graph(folder: Path) -> HeteroData:
    """Make the training graph of ``make train``."""
    run = default_run()
    return synthetic_graph(run.synthetic, folder).split(run.split)
