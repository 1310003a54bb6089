"""Compare our model, PyG's attention, LightGCN, MF and the baselines on one split, in one run.

It measures quality with intervals, fit time, time until the bars that item-knn-bm25 and EASE set on validation, and
peak memory. Each row has its own process. Trained rows use the config's loss, batches and learning rate, and stop when
validation no longer improves or their time is over. The table, the learning curves and JSON go to --results. If a run
is stopped, the same command continues it, as long as machine, commit and options are the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from comparison_report import Row, markdown, picture, report, table
from config_graph import missing_data, training_graph
from machine import CHECKOUT, code, commit, machine, print_where
from processes import ProcessFailed, environment, measure
from row_names import DEFAULT_ROWS, ROWS, TRAINED

from data.machine import threads
from data.project import artifacts_folder
from tasks.run_config import RunConfig, load_run_config

REAL, MADE_UP = "configs/lastfm-tracks.toml", "configs/synthetic-medium.toml"
OURS, PATIENT = "gat", 10
"""The row that uses the config's epochs; the other trained rows may use this many times as many."""

BUDGET = 900.0


@dataclass(frozen=True)
class Plan:
    """The options of a run of this benchmark."""

    config: str
    run: RunConfig
    rows: tuple[str, ...]
    seeds: int
    epochs: int | None
    budget: float

    def epochs_of(self, row: str) -> int:
        """Return the maximum of epochs. The config's number is for our model; the others may need more."""
        return self.epochs or (1 if row == OURS else PATIENT) * self.run.num_epochs

    def key(self) -> str:
        """Return a digest of everything that the numbers of one table must share; the rows are independent."""
        options = [self.config, self.run.model_dump(mode="json"), self.seeds, self.epochs, self.budget]
        origin = [machine(), threads(), commit(), code()]
        return hashlib.sha256(json.dumps([options, origin], sort_keys=True).encode()).hexdigest()[:16]


def main() -> None:
    chosen = arguments()
    print_where()
    print(f"threads  {threads()}, load {os.getloadavg()[0]:.1f}")
    config = chosen.config or default_config()
    print(f"config   {config}")
    if absent := missing_data(config):
        raise SystemExit(absent)
    plan = Plan(config, load_run_config(config), tuple(chosen.rows), chosen.seeds, chosen.epochs, chosen.budget)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        compare(plan, chosen.results)
    except KeyboardInterrupt:
        raise SystemExit("stopped  finished rows are kept; the same command continues from there") from None


def default_config() -> str:
    """Return the config of the real data if it is there, else that of a made-up log."""
    if not (absent := missing_data(REAL)):
        return REAL
    print(f"left out {REAL}: {absent}")
    return MADE_UP


def compare(plan: Plan, results: Path) -> None:
    """Measure all rows that are not measured yet, and write the results."""
    name = Path(plan.config).stem
    folder, description, before = artifacts_folder() / "bench" / name / plan.key(), describe(plan), code()
    rows = measure_rows(plan, folder)
    if code() != before:
        description["commit"] += ", and the code changed while it ran"
    write(report(description, rows), results, name)
    shutil.rmtree(folder)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", help=f"the config (default: {REAL} where its data is, else {MADE_UP})")
    parser.add_argument("--rows", nargs="+", default=DEFAULT_ROWS, choices=ROWS, metavar="ROW",
                        help=f"of {', '.join(ROWS)} (default: {len(DEFAULT_ROWS)} of them)")  # fmt: skip
    parser.add_argument("--seeds", type=positive, default=1, help="trainings of each model (default: %(default)s)")
    parser.add_argument("--epochs", type=positive,
                        help=f"at most (default: the config's; {PATIENT} times as many but for {OURS})")  # fmt: skip
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="SECONDS",
                        help="after so many no further epoch of a row starts (default: %(default)g)")  # fmt: skip
    parser.add_argument("--results", type=Path, default=CHECKOUT / "benchmarks" / "results", metavar="FOLDER",
                        help="where the files go (default: benchmarks/results)")  # fmt: skip
    return parser.parse_args()


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is given; it has to be a whole number of at least 1")
    return int(text)


def measure_rows(plan: Plan, folder: Path) -> list[Row]:
    """Measure every row, quick ones first. A row that an earlier run finished is read; a row that fails says why."""
    try:
        graph = training_graph(plan.config, folder / "project")
    except ProcessFailed as failed:
        raise SystemExit(f"The config gives no graph: {failure_reason(failed, folder)}") from None
    quick_first = sorted(plan.rows, key=lambda name: (name in TRAINED, name == "ease"))
    measured = {name: measure_row(name, plan, graph, folder) for name in quick_first}
    return [measured[name] for name in plan.rows]


def measure_row(name: str, plan: Plan, graph: Path, folder: Path) -> Row:
    """Measure a row: one training per seed, or one fit of a baseline."""
    folders = []
    for seed in range(plan.seeds if name in TRAINED else 1):
        out = folder / f"{name}-{seed}"
        if not (out / "measured.json").is_file():
            print(f"{'trains' if name in TRAINED else 'fits':8} {name}, seed {seed}", flush=True)
            try:
                run_row(name, seed, plan, graph, out)
            except ProcessFailed as failed:
                return Row(name, [], [], failed=failure_reason(failed, folder))
        folders.append(out)
    measured = [json.loads((out / "measured.json").read_text()) for out in folders]
    if "left_out" in measured[0]:
        return Row(name, [], [], failed=measured[0]["left_out"])
    return Row(name, measured, [read_users(out / "users.npz") for out in folders])


def run_row(name: str, seed: int, plan: Plan, graph: Path, out: Path) -> None:
    """Run ``comparison_row.py``."""
    given = {
        "row": name, "config": plan.config, "graph": graph, "out": out, "seed": seed,
        "seeds": plan.seeds, "epochs": plan.epochs_of(name), "budget": plan.budget,
    }  # fmt: skip
    options = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    measure(["benchmarks/comparison_row.py", *options], environment(out))


def read_users(path: Path) -> dict[str, np.ndarray]:
    """Read the metrics of every user, "test ndcg@20" to (N,)."""
    with np.load(path) as stored:
        return dict(stored)


def failure_reason(failed: ProcessFailed, folder: Path) -> str:
    """Return the last line of a process's error output, without the names of folders."""
    lines, code = [line.strip() for line in failed.stderr.splitlines() if line.strip()], failed.exit_code
    how = f"signal {-code}, perhaps not enough memory" if code < 0 else f"exit {code}"
    text = lines[-1].removeprefix("data.errors.InputError: ") if lines and code > 0 else "it was ended"
    for path in (folder, CHECKOUT, Path.home()):
        text = text.replace(str(path), "…")
    return f"failed ({how}): {text[:300]}"


def describe(plan: Plan) -> dict[str, Any]:
    """Return what a reader must know about the numbers, without paths of this machine."""
    return {
        "data": Path(plan.config).stem,
        "command": command(plan),
        "config": Path(plan.config).name,
        "machine": machine(),
        "threads": threads(),
        "load": round(os.getloadavg()[0], 1),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "k": plan.run.evaluation.k,
        "seeds": plan.seeds,
        "epochs": {row: plan.epochs_of(row) for row in plan.rows if row in TRAINED},
        "budget": plan.budget,
        "model": plan.run.model,
        "training": plan.run.training,
    }


def command(plan: Plan) -> str:
    """Return the command that gives the same table."""
    given = [] if plan.rows == DEFAULT_ROWS else ["--rows", *plan.rows]
    given += [] if plan.seeds == 1 else ["--seeds", str(plan.seeds)]
    given += [] if plan.budget == BUDGET else ["--budget", f"{plan.budget:g}"]
    config = Path("configs") / Path(plan.config).name
    given += [] if plan.epochs is None else ["--epochs", str(plan.epochs)]
    return " ".join(["python benchmarks/comparison.py --config", str(config), *given])


def write(found: dict[str, Any], folder: Path, name: str) -> None:
    """Print the table, and write the JSON, the page and the picture."""
    print("\n" + table(found))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(markdown(found), encoding="utf-8")
    (folder / f"{name}.svg").write_text(picture(found), encoding="utf-8")
    place = folder.resolve()
    shown = place.relative_to(CHECKOUT) if place.is_relative_to(CHECKOUT) else place
    print(f"\nwritten  {shown}: {name}.json, {name}.md, {name}.svg")


if __name__ == "__main__":
    main()
