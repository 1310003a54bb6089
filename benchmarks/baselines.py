"""The baselines of a config on its own split, beside what was measured with the libraries directly.

Runs the stages up to the split once, then each baseline in a process of its own, all in a temporary project root.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from child import environment, measure
from machine import GIB, print_where
from quality import why_absent

from evaluation.baselines.factory import BASELINES

METRICS = ("recall@20", "recall@40", "ndcg@20", "ndcg@40")
CLOSE = 0.005
MEASURED = {
    "popularity": (0.0270, 0.0391, 0.0237, 0.0280),
    "item-knn-cosine": (0.1877, 0.2310, 0.1849, 0.1986),
    "ials": (0.2371, 0.3073, 0.2313, 0.2525),
    "item-knn-bm25": (0.2520, 0.3154, 0.2544, 0.2722),
    "ease": (0.2716, 0.3356, 0.2727, 0.2899),
}
"""METRICS on the test part of lastfm-tracks: measured with implicit 0.7.3 on this split (EASE by scipy), all tracks
ranked, train tracks hidden, with the parameters that are our defaults."""

STAGES = """
import sys
from prefect import flow
from tasks.baselines import fit_baseline
from tasks.config import load_run_config
from tasks.graph import build_graph
from tasks.ingest import find_log, ingest
from tasks.split import split

@flow(name="baselines", persist_result=True, result_serializer="json")
def baselines(config, *names):
    run = load_run_config(config)
    listens = ingest(run, find_log(run))
    graph = build_graph(run, listens)
    training_graph = split(run, graph, listens)
    for name in names:
        fit_baseline(name, run, training_graph, graph)

baselines(*sys.argv[1:])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/lastfm-tracks.toml", help="the config (default: %(default)s)")
    parser.add_argument("--baselines", nargs="+", default=list(BASELINES), help="which ones (default: all)")
    chosen = parser.parse_args()
    print_where()
    print(f"config   {chosen.config}")
    if absent := why_absent(chosen.config):
        print(f"left out {absent}")
        return
    with TemporaryDirectory() as folder:
        compare(chosen.config, chosen.baselines, Path(folder))


def compare(config: str, names: list[str], home: Path) -> None:
    """Print each baseline's numbers, the difference to those measured before, seconds and memory."""
    variables = environment(home)
    measure(["-c", STAGES, config], variables)
    print(f"{'':16} {'  '.join(f'{name:>18}' for name in METRICS)}  seconds  GiB at most")
    for name in names:
        measured = measure(["-c", STAGES, config, name], variables)
        (folder,) = (
            path.parent for path in (home / "artifacts" / "store" / f"baseline-{name}").glob("*/manifest.json")
        )
        print(line(name, folder, measured.peak_bytes), flush=True)
    print(f"the difference to what was measured with the libraries directly is in brackets; goal: within {CLOSE}")


def line(name: str, folder: Path, peak_bytes: int) -> str:
    """One row of the table, or why the baseline is left out."""
    if (folder / "left_out.json").exists():
        return f"{name:16} left out: {json.loads((folder / 'left_out.json').read_text())['why']}"
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    seconds = json.loads((folder / "manifest.json").read_text())["seconds"]
    cells = "  ".join(f"{cell:>18}" for cell in cells_of(name, metrics))
    return f"{name:16} {cells}  {seconds:7.0f}  {peak_bytes / GIB:11.2f}"


def cells_of(name: str, metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Each metric, with the difference to the measured one where there is one."""
    found = [metrics[metric]["mean"] for metric in METRICS]
    if name not in MEASURED:
        return [f"{value:.4f}" for value in found]
    return [f"{value:.4f} ({value - before:+.4f})" for value, before in zip(found, MEASURED[name], strict=True)]


if __name__ == "__main__":
    main()
