"""The made-up log that claims are measured on, as a graph."""

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


class MadeUp(NamedTuple):
    """The whole graph of a log, and the folder of the ingest stage from which it was built."""

    whole: HeteroData
    listens: Path

    def split(self, config: SplitConfig) -> HeteroData:
        """The training graph."""
        return split_graph(self.whole, config, read_listens(self.listens))


def usual_run() -> RunConfig:
    """The config of ``make train``."""
    return load_run_config(CHECKOUT / "configs" / "synthetic.toml")


def made_up(log: SyntheticConfig, folder: Path) -> MadeUp:
    """Make a log in a folder and build its graph."""
    write_log(log, folder / "log")
    return built(folder / "log" / "*.parquet", folder)


def without_last_days(days: int, folder: Path) -> MadeUp:
    """The log of ``make train`` as it was some days before its end."""
    events = pa.concat_tables(event_tables(SyntheticConfig()))
    until = pc.max(events["played_at"]).as_py() - timedelta(days=days)
    heard = pc.less_equal(events["played_at"], pa.scalar(until, events.schema.field("played_at").type))
    folder.mkdir(parents=True)
    pq.write_table(events.filter(heard), folder / "events.parquet")
    return built(folder / "events.parquet", folder)


def built(events: Path, folder: Path) -> MadeUp:
    """The graph of a log's files, a path or a glob."""
    config = IngestConfig.parse({"events": [str(events)]}, "ingest")
    listens = folder / "listens"
    listens.mkdir(parents=True)
    ingest(config, listens, find_files(config))
    return MadeUp(build_graph(listens), listens)


def usual_graph(folder: Path) -> HeteroData:
    """The training graph of ``make train``."""
    run = usual_run()
    return made_up(run.synthetic, folder).split(run.split)
