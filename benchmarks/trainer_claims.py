"""Whether each trainer does what it is for: a row a claim, with its interval and its cost against AdvancedTrainer.

All is measured on the made-up log, where it is known who listens why. A row that does not reach its bar says so.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from claims.claim import Claim, Claims
from machine import print_where

CLAIMS = ("warm_start", "adversarial", "curriculum", "federated", "meta", "multitask", "online")
"""Each has a module of this name in ``claims``."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", nargs="+", default=list(CLAIMS), choices=list(CLAIMS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each kind (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="a Markdown file to write the table to")
    chosen = parser.parse_args()
    print_where()
    rows = [claim for name in chosen.claims for claim in measured(name, range(chosen.seeds))]
    table = markdown(rows)
    print(f"\n{table}")
    if chosen.results:
        chosen.results.write_text(table, encoding="utf-8")


def measured(name: str, seeds: Sequence[int]) -> list[Claim]:
    """The claims of one trainer; what they write on the way is deleted."""
    print(f"measures {name}", flush=True)
    claims: Claims = importlib.import_module(f"claims.{name}").claims
    with TemporaryDirectory() as folder:
        return claims(seeds, Path(folder))


def markdown(rows: Sequence[Claim]) -> str:
    """The table."""
    head = "| trainer | what it is for | measured | reached | time against `advanced` |\n|---|---|---|---|---|\n"
    lines = (
        f"| `{row.trainer}` | {row.what} | {row.measured} | {'yes' if row.reached else '**no**'} | {row.cost:.2f} |\n"
        for row in rows
    )
    return head + "".join(lines)


if __name__ == "__main__":
    main()
