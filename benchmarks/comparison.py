"""The whole comparison in one run: our model, PyG's attention, LightGCN, MF and the baselines on one split.

Quality with intervals, fit time, time until the bars that item-knn-bm25 and EASE set on validation, and peak memory,
each row in a process of its own. Trained rows have the config's loss, batches and learning rate, and stop when
validation stands still or their time is up. Table, learning curves and JSON go to --results. What is done of a run that
was stopped is kept, and the same command goes on from there, as long as machine, commit and options are the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from child import ChildFailed, environment, measure
from machine import CHECKOUT, code, commit, machine, print_where
from prepared import training_graph, why_absent
from rows import DEFAULT_ROWS, ROWS, TRAINED
from standings import Row, markdown, picture, report, table

from data.machine import threads
from data.project import artifacts_folder
from tasks.run_config import RunConfig, load_run_config

REAL, MADE_UP = "configs/lastfm-tracks.toml", "configs/synthetic-medium.toml"
OURS, PATIENT = "gat", 10
"""The row that takes the config's epochs, and how many times as many the other trained rows may take."""

BUDGET = 900.0


@dataclass(frozen=True)
class Plan:
    """What a run of this benchmark measures."""

    config: str
    run: RunConfig
    rows: tuple[str, ...]
    seeds: int
    epochs: int | None
    budget: float

    def epochs_of(self, row: str) -> int:
        """Epochs at most. The config's number is our model's; the others get time enough to reach their best."""
        return self.epochs or (1 if row == OURS else PATIENT) * self.run.num_epochs

    def key(self) -> str:
        """Digest of all that numbers of one table have to share; not of the rows, each of which stands for itself."""
        shared = [self.config, self.run.model_dump(mode="json"), self.seeds, self.epochs, self.budget]
        where = [machine(), threads(), commit(), code()]
        return hashlib.sha256(json.dumps([shared, where], sort_keys=True).encode()).hexdigest()[:16]


def main() -> None:
    chosen = arguments()
    print_where()
    print(f"threads  {threads()}, beside a load of {os.getloadavg()[0]:.1f}")
    config = chosen.config or default_config()
    print(f"config   {config}")
    if absent := why_absent(config):
        raise SystemExit(absent)
    plan = Plan(config, load_run_config(config), tuple(chosen.rows), chosen.seeds, chosen.epochs, chosen.budget)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        compare(plan, chosen.results)
    except KeyboardInterrupt:
        raise SystemExit("stopped  what is done is kept; the same command goes on from there") from None


def default_config() -> str:
    """The config of the real data where that is there, else of a made-up log."""
    if not (absent := why_absent(REAL)):
        return REAL
    print(f"left out {REAL}: {absent}")
    return MADE_UP


def compare(plan: Plan, results: Path) -> None:
    """Measure what is not measured yet, and write it all down."""
    name = Path(plan.config).stem
    folder, described, before = artifacts_folder() / "bench" / name / plan.key(), describe(plan), code()
    rows = measured_rows(plan, folder)
    if code() != before:
        described["commit"] += ", and the code changed while it ran"
    write(report(described, rows), results, name)
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
    """A whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is given; it has to be a whole number of at least 1")
    return int(text)


def measured_rows(plan: Plan, folder: Path) -> list[Row]:
    """Every row, those of a run that was stopped among them; one that fails says why."""
    try:
        graph = training_graph(plan.config, folder / "project")
    except ChildFailed as failed:
        raise SystemExit(f"The config gives no graph: {reason(failed, folder)}") from None
    measured = {name: measured_row(name, plan, graph, folder) for name in in_order(plan.rows)}
    return [measured[name] for name in plan.rows]


def in_order(rows: Sequence[str]) -> list[str]:
    """What is done quickly first."""
    return sorted(rows, key=lambda name: (name in TRAINED, name == "ease"))


def measured_row(name: str, plan: Plan, graph: Path, folder: Path) -> Row:
    """A row from its trainings, one a seed; a baseline is fitted once."""
    runs = []
    for seed in range(plan.seeds if name in TRAINED else 1):
        out = folder / f"{name}-{seed}"
        if not (out / "measured.json").is_file():
            print(f"{'trains' if name in TRAINED else 'fits':8} {name}, seed {seed}", flush=True)
            try:
                measure_contender(name, seed, plan, graph, out)
            except ChildFailed as failed:
                return Row(name, [], [], failed=reason(failed, folder))
        runs.append(out)
    found = [json.loads((out / "measured.json").read_text()) for out in runs]
    if "left_out" in found[0]:
        return Row(name, [], [], failed=found[0]["left_out"])
    return Row(name, found, [users(out / "users.npz") for out in runs])


def measure_contender(name: str, seed: int, plan: Plan, graph: Path, out: Path) -> None:
    """Run ``contender.py``."""
    given = {
        "row": name, "config": plan.config, "graph": graph, "out": out, "seed": seed,
        "seeds": plan.seeds, "epochs": plan.epochs_of(name), "budget": plan.budget,
    }  # fmt: skip
    options = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    measure(["benchmarks/contender.py", *options], environment(out))


def users(path: Path) -> dict[str, np.ndarray]:
    """Metrics of every user, "test ndcg@20" to (N,)."""
    with np.load(path) as stored:
        return dict(stored)


def reason(failed: ChildFailed, folder: Path) -> str:
    """The last line that a process said, without the names of folders."""
    lines = [line.strip() for line in failed.said.splitlines() if line.strip()]
    ended = f"signal {-failed.ended}, perhaps for want of memory" if failed.ended < 0 else f"exit {failed.ended}"
    said = lines[-1].removeprefix("data.errors.InputError: ") if lines and failed.ended > 0 else "it was ended"
    for place in (folder, CHECKOUT, Path.home()):
        said = said.replace(str(place), "…")
    return f"failed ({ended}): {said[:300]}"


def describe(plan: Plan) -> dict[str, Any]:
    """What a reader has to know about the numbers; no path of this machine."""
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
    """What gives the same table."""
    given = [] if plan.rows == DEFAULT_ROWS else ["--rows", *plan.rows]
    given += [] if plan.seeds == 1 else ["--seeds", str(plan.seeds)]
    given += [] if plan.budget == BUDGET else ["--budget", f"{plan.budget:g}"]
    config = Path("configs") / Path(plan.config).name
    given += [] if plan.epochs is None else ["--epochs", str(plan.epochs)]
    return " ".join(["python benchmarks/comparison.py --config", str(config), *given])


def write(found: dict[str, Any], folder: Path, name: str) -> None:
    """Print the table, and write it with all that is behind it."""
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
