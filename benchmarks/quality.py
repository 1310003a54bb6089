"""Recall and NDCG of the benchmark configs on the split that their data brings, with time and memory of the whole job.

A config whose data is absent is named and left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from child import environment, measure
from machine import GIB, print_where

from data.errors import InputError
from tasks.config import load_run_config

CONFIGS = ["configs/lastfm-tracks.toml", "configs/lastfm-artists.toml"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", nargs="+", default=CONFIGS, help="configs to run (default: %(default)s)")
    chosen = parser.parse_args()
    print_where()
    for config in chosen.config:
        print(f"\n{config}")
        if absent := why_absent(config):
            print(f"left out {absent}")
            continue
        with TemporaryDirectory() as folder:
            run(config, Path(folder))


def why_absent(config: str) -> str:
    """A sentence where the config's data is not there; else empty."""
    try:
        run = load_run_config(config)
        if not run.uses_synthetic_log():
            run.log_files()
    except InputError as error:
        return str(error)
    return ""


def run(config: str, home: Path) -> None:
    """Run the main job from nothing in ``home``, and print what it took and how good it is."""
    measured = measure(["-m", "flows.train", "--config", config], environment(home))
    print(f"took     {measured.seconds:.0f} s, at most {measured.peak_bytes / GIB:.2f} GiB")
    (path,) = (home / "artifacts" / "store" / "evaluate").glob("*/metrics.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    print(f"ranked   all {record['num_songs']:,} songs for {record['num_users']:,} users; 95 % intervals")
    for name, interval in record["metrics"].items():
        popular = record["baselines"]["popularity"][name]
        print(f"{name:<13} {_text(interval)}   popularity {_text(popular)}")


def _text(interval: Mapping[str, Any]) -> str:
    return f"{interval['mean']:.4f} ({interval['low']:.4f} to {interval['high']:.4f})"


if __name__ == "__main__":
    main()
