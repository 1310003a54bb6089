"""Measure a fully cached run, compared with an empty Prefect flow that has as many tasks and artifacts.

Each is a fresh process with its own temporary server, as when a person runs it. The goal is a ratio of 1.5.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from machine import CHECKOUT, print_where
from processes import environment, measure

EMPTY_FLOW = """
import sys
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

@task(cache_policy=NO_CACHE, persist_result=True, result_serializer="json")
def step(number):
    create_markdown_artifact(key=f"stage-{number}", markdown="| | |")

@flow(persist_result=True, result_serializer="json")
def empty():
    for number in range(int(sys.argv[1])):
        step(number)

empty()
"""
HEAVY = ("torch", "torch_geometric")
GOAL = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/synthetic.toml", help="the run's config (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs to time (default: %(default)s)")
    chosen = parser.parse_args()
    print_where()
    print(f"config   {chosen.config}")
    with TemporaryDirectory() as folder:
        compare(["-m", "flows.train", "--config", chosen.config], Path(folder), chosen.repeats)


def compare(run: list[str], home: Path, repeats: int) -> None:
    """Fill the cache, then time both in turns and print the medians."""
    variables = environment(home)
    measure(run, variables)
    stages = len(list((home / "artifacts" / "store").iterdir()))
    empty = ["-c", EMPTY_FLOW, str(stages)]
    measure(empty, variables)
    pairs = [(measure(run, variables).seconds, measure(empty, variables).seconds) for _ in range(repeats)]
    cached, nothing = (median(times) for times in zip(*pairs, strict=True))
    print(f"cached   {cached:.2f} s, {stages} stages, median of {repeats}")
    print(f"empty    {nothing:.2f} s, {stages} tasks with a markdown artifact each")
    print(f"ratio    {cached / nothing:.2f} (goal: at most {GOAL})")
    print(f"imported {', '.join(heavy_imports(run, variables)) or 'none'} of {', '.join(HEAVY)}")


def heavy_imports(run: list[str], variables: Mapping[str, str]) -> list[str]:
    """Return the heavy libraries that a cached run imports."""
    stderr = measure(["-X", "importtime", *run], variables).stderr
    imported = set(re.findall(r"^import time:.*\|\s+(\S+)$", stderr, re.MULTILINE))
    if "prefect" not in imported:
        raise SystemExit(f"python -X importtime printed no line about prefect in {CHECKOUT}.")
    return [name for name in HEAVY if name in imported]


if __name__ == "__main__":
    main()
