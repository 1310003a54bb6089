"""The seeds stage: compares several trainings that differ by their seed only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.errors import InputError
from tasks.cache.ref import Ref
from tasks.cache.stage import Stage
from tasks.run import Run

DEFAULT_SEED = 0
"""The default of the trainers, see ``trainers/config.py``."""


def _compare(folder: Path, config: Mapping[str, Any], **evaluations: Path) -> Mapping[str, Any]:
    from evaluation.seed_comparison import compare_evaluations

    record = compare_evaluations(list(evaluations.values()), config["seeds"])
    record.write(folder / "seeds.json")
    watched = record.metrics[record.metric]
    return {"seeds": len(record.seeds), "metric": record.metric, "mean": watched.mean, "sd": watched.sd}


SEEDS = Stage("seeds", 1, _compare, code=("evaluation.seed_comparison",))


def runs_by_seed(run: Run) -> list[Run]:
    """Return the run once for each of its ``seeds``, counting up from its ``training.seed``.

    The first is the run itself, so that it finds the results of a run with one seed. Its model is the one to register:
    chosen before anything is measured, never by what is measured. Only the training's seed differs: all have one split,
    one sample of users to evaluate, and one name.

    Raises:
        InputError: several seeds are asked for, and ``training.seed`` is no whole number to count up from.
    """
    return [run, *(_with_seed(run, offset) for offset in range(1, run.config.seeds))]


def compare_seeds(run: Run, evaluations: Sequence[Ref]) -> Ref | None:
    """Compare the evaluations of ``runs_by_seed``, in its order; the folder holds ``seeds.json``. None for one seed."""
    if run.config.seeds == 1:
        return None
    seeds = [_first_seed(run) + offset for offset in range(run.config.seeds)]
    paired = zip(seeds, evaluations, strict=True)
    inputs: dict[str, Any] = {f"evaluation_{place}": ref for place, (_, ref) in enumerate(paired)}
    return run.execute(SEEDS, {"seeds": seeds}, **inputs)


def _with_seed(run: Run, offset: int) -> Run:
    training = {**run.config.training, "seed": _first_seed(run) + offset}
    config = run.config.model_copy(update={"training": training})
    config._variant = f"+seed-{offset}"  # no name holds a plus: a stage tells this seed's last run from the others'
    return replace(run, config=config)


def _first_seed(run: Run) -> int:
    seed = run.config.training.get("seed", DEFAULT_SEED)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InputError(f"training.seed is {seed!r}; give a whole number, from which --seeds counts up.")
    return seed
