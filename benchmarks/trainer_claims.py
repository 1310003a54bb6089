"""Measure if each trainer does what it is for: a row per claim, with its interval and its cost against AdvancedTrainer.

All claims are measured on a synthetic log, for which it is known why users listen. A row that does not reach its bar
says so. A claim takes from minutes to half an hour, so claims can be measured one by one: the table keeps other rows.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from claims.claim import Claim, Claims
from machine import CHECKOUT, commit, machine, print_where

CLAIMS = ("warm_start", "adversarial", "curriculum", "federated", "meta", "multitask", "online")
"""Names of the modules in ``claims``."""
RESULTS = CHECKOUT / "benchmarks" / "results" / "trainer-claims.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", nargs="+", default=list(CLAIMS), choices=list(CLAIMS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each kind (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file, with a table beside it")
    chosen = parser.parse_args()
    print_where()
    for name in chosen.claims:
        rows = measured(name, range(chosen.seeds))
        print("".join(map(line, rows)), flush=True)
        keep(chosen.results, name, rows, chosen.seeds)
    print(f"Table: {chosen.results.with_suffix('.md')}")


def measured(name: str, seeds: Sequence[int]) -> list[Claim]:
    """Measure the claims of one trainer; files that they write are deleted."""
    print(f"measures {name}", flush=True)
    claims: Claims = importlib.import_module(f"claims.{name}").claims
    with TemporaryDirectory() as folder:
        return claims(seeds, Path(folder))


def keep(path: Path, name: str, rows: Sequence[Claim], seeds: int) -> None:
    """Replace the rows of one trainer, and write the table again."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known[name] = {"machine": machine(), "commit": commit(), "seeds": seeds, "rows": [asdict(row) for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(page(known), encoding="utf-8")


def page(known: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page: the table, and the commit, seeds and machine of each claim."""
    head = (
        "# What each trainer is worth\n\n"
        "Means over seeds with 95 % intervals over users and seeds, on made-up logs; the time is that of training.\n\n"
        "| trainer | what it is for | measured | reached | time against `advanced` |\n|---|---|---|---|---|\n"
    )
    names = [name for name in CLAIMS if name in known]
    lines = (line(Claim(**row)) for name in names for row in known[name]["rows"])
    origins = (
        f"- {name}: commit {known[name]['commit']}, {known[name]['seeds']} seeds, {known[name]['machine']}\n"
        for name in names
    )
    return f"{head}{''.join(lines)}\n{''.join(origins)}\n```\npython benchmarks/trainer_claims.py\n```\n"


def line(row: Claim) -> str:
    """Format a row of the table."""
    reached = "yes" if row.reached else "**no**"
    return f"| `{row.trainer}` | {row.what} | {row.measured} | {reached} | {row.cost:.2f} |\n"


if __name__ == "__main__":
    main()
