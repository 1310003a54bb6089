"""The seeds stage: several trainings that differ by their seed only, and what they say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.errors import InputError
from tasks.cache.ref import Ref
from tasks.cache.stage import Stage
from tasks.run_config import RunConfig

DEFAULT_SEED = 0
"""The trainers' own, see ``trainers/config.py``."""


def _compare(folder: Path, config: Mapping[str, Any], **evaluations: Path) -> Mapping[str, Any]:
    from evaluation.statistics.seed_comparison import compare_evaluations

    record = compare_evaluations(list(evaluations.values()), config["seeds"])
    record.write(folder / "seeds.json")
    watched = record.metrics[record.metric]
    return {"seeds": len(record.seeds), "metric": record.metric, "mean": watched.mean, "sd": watched.sd}


SEEDS = Stage("seeds", 1, _compare, code=("evaluation.statistics.seed_comparison",))


def runs_by_seed(run: RunConfig) -> list[RunConfig]:
    """The run once for each of its ``seeds``, counting up from its ``training.seed``.

    The first is the run itself, so that it finds the results of a run with one seed. Its model is the one to register:
    chosen before anything is measured, never by what is measured. Only the training's seed differs: all have one split,
    one sample of users to evaluate, and one name.

    Raises:
        InputError: several seeds are asked for, and ``training.seed`` is no whole number to count up from.
    """
    return [run, *(_with_seed(run, offset) for offset in range(1, run.seeds))]


def compare_seeds(run: RunConfig, evaluations: Sequence[Ref]) -> Ref | None:
    """Compare the evaluations of ``runs_by_seed``, in its order; the folder holds ``seeds.json``. None for one seed."""
    if run.seeds == 1:
        return None
    seeds = [_first_seed(run) + offset for offset in range(run.seeds)]
    paired = zip(seeds, evaluations, strict=True)
    inputs: dict[str, Any] = {f"evaluation_{place}": ref for place, (_, ref) in enumerate(paired)}
    return SEEDS(run, {"seeds": seeds}, **inputs)


def _with_seed(run: RunConfig, offset: int) -> RunConfig:
    other = run.model_copy(update={"training": {**run.training, "seed": _first_seed(run) + offset}})
    other._variant = f"+seed-{offset}"  # no name holds a plus: a stage tells this seed's last run from the others'
    return other


def _first_seed(run: RunConfig) -> int:
    seed = run.training.get("seed", DEFAULT_SEED)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InputError(f"training.seed is {seed!r}; give a whole number, from which --seeds counts up.")
    return seed
