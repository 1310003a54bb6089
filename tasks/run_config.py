"""The configuration of one run: a TOML file, overridden by the command line or a deployment's parameters."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, PrivateAttr

from data.config import Config
from data.errors import InputError
from data.events.ingest_config import IngestConfig
from data.events.log_files import find_files
from data.project import checkout, project_root
from data.split import SplitConfig
from data.synthetic.log import SyntheticConfig
from data.weights import WeightConfig
from registry.gate.gate_config import GateConfig
from tasks.tune_config import TuneConfig

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}")


Table = dict[str, Any]


class EvaluationConfig(Config):
    """How the evaluate stage scores the model that the train stage chose."""

    num_eval_users: int | None = Field(None, ge=1000)
    """Users to score, sampled once with the seed; none means every user with a held-out song. At least 1,000."""
    seed: int = 0
    """Seed of the sample of users and of the bootstrap."""
    more_ks: tuple[PositiveInt, ...] = ()
    """Lengths of the list to report beside ``training.eval_k``."""
    conventions: tuple[Literal["lightgcn", "min_k", "kgat"], ...] = ()
    """Other papers' ways to count, reported beside the contract's, so that their tables can be met."""


class RunConfig(Config):
    """Everything that decides what a run computes. The tables are parsed by the code that they configure."""

    name: str = Field("songgraph", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the registered model; logs that should not compete have different names."""
    trainer: str = "advanced"
    """A name from the table of trainers, or ``package.module:Class``."""
    num_epochs: int = Field(20, ge=1)
    """Epochs at most; AdvancedTrainer may stop earlier."""
    synthetic: Table = Field(default_factory=dict)
    """The made-up log that is used where ``ingest.events`` names none (see ``data/synthetic/log.py``)."""
    ingest: Table = Field(default_factory=dict)
    """Where the log is, its columns and its filters (see ``data/events/ingest.py``)."""
    weights: Table = Field(default_factory=dict)
    """How plays, completion and age become a listen's weight (see ``data/weights.py``)."""
    split: Table = Field(default_factory=dict)
    """Strategy and salt (see ``data/split.py``); the ratios are ``training``'s, as in the trainer guide."""
    model: Table = Field(default_factory=dict)
    """The trainer guide's ``model_config``, without the node counts, which the graph gives."""
    training: Table = Field(default_factory=dict)
    """The trainer guide's ``training_config``."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How the result is scored."""
    baselines: Literal["none", "fast", "all"] = "fast"
    """What stands beside the result: popularity alone, what is fitted in seconds, or all (``evaluation/baselines``)."""
    seeds: int = Field(1, ge=1)
    """How many models to train, that differ by their seed only; five tell a difference from chance."""
    refit: bool = False
    """Whether the winning configuration is trained once more on all listens, and that model is published."""
    gate: Table = Field(default_factory=dict)
    """When a new model takes the champion's place (see ``registry/gate/gate_config.py``)."""
    tune: TuneConfig = TuneConfig()
    """How ``flows.tune`` searches; a training run does not read it."""
    timeout_minutes: float | None = Field(None, gt=0)
    """A stage that takes longer fails; none means no limit."""

    _variables: tuple[str, ...] = PrivateAttr(())
    _variant: str = PrivateAttr("")

    @property
    def remembered_as(self) -> str:
        """The name under which stages remember what they used last: one of its own for each further seed."""
        return f"{self.name}{self._variant}"

    def uses_synthetic_log(self) -> bool:
        return not self.ingest.get("events")

    def synthetic_config(self) -> SyntheticConfig:
        return SyntheticConfig.parse(self.synthetic, "synthetic")

    def gate_config(self) -> GateConfig:
        return GateConfig.parse(self.gate, "gate")

    def weight_config(self) -> WeightConfig:
        return WeightConfig.parse(self.weights, "weights")

    def split_config(self) -> SplitConfig:
        """The split's own keys with the trainer's ratios.

        Raises:
            InputError: when the ratios are given under ``split``, where nobody would look for them.
        """
        for ratio in {"val_ratio", "test_ratio"} & set(self.split):
            raise InputError(f"split.{ratio} is not allowed: the ratios belong to training; move it to [training].")
        ratios: Table = {key: self.training[key] for key in ("val_ratio", "test_ratio") if key in self.training}
        return SplitConfig.parse({**self.split, **ratios}, "split")

    def ingest_config(self, synthetic_log: Path | None = None) -> IngestConfig:
        """What to read; under a temporal split the filters count only what was played before its cut."""
        split = self.split_config()
        given = {**self.ingest, **({"events": [str(synthetic_log)]} if synthetic_log else {})}
        given |= {key: _from_root(given[key], key) for key in ("events", "track_artists") if given.get(key)}
        filters = given.get("min_user_songs") or given.get("min_song_users")
        if split.strategy == "temporal" and filters:
            given["cut"] = split.cut().model_dump()
        return IngestConfig.parse(given, "ingest")

    def log_files(self) -> list[Path]:
        """The files that the log consists of now.

        Raises:
            InputError: a file is missing, or a glob matches none; an environment variable that the config took part
                of the path from is named.
        """
        try:
            return find_files(self.ingest_config())
        except InputError as error:
            named = " and ".join(self._variables)
            hint = f" The config takes paths from the environment variable {named}: set it to where the data is."
            raise InputError(f"{error}{hint if named else ''}") from None


def load_run_config(
    path: str | Path | None = None, *layers: Mapping[str, Any] | None, events: str | list[str] | None = None
) -> RunConfig:
    """Read a TOML file and lay the layers over it: tables are merged, other values replaced, None is left out.

    ``${NAME}`` and ``${NAME:-default}`` in strings stand for environment variables.

    Args:
        path: the file, as given or relative to the project root; none means the defaults.
        events: files, folders or globs to read in place of ``ingest.events``.

    Raises:
        InputError: for a missing or malformed file, an unknown key, or a variable that is not set.
    """
    merged = merged_tables(path, *layers, events=events)
    run = RunConfig.parse(_expanded(merged), "the run's config")
    run._variables = tuple(sorted({match["name"] for match in _VARIABLE.finditer(json.dumps(merged, default=str))}))
    for check in (run.synthetic_config, run.weight_config, run.split_config, run.gate_config):
        check()
    if not run.uses_synthetic_log():
        run.ingest_config()
    return run


def merged_tables(
    path: str | Path | None = None, *layers: Mapping[str, Any] | None, events: str | list[str] | None = None
) -> Table:
    """The file with the layers laid over it as ``load_run_config`` does, variables as written and nothing checked.

    Raises:
        InputError: for a missing or malformed file.
    """
    merged = _read_toml(_find(path)) if path else {}
    for layer in (*layers, {"ingest": {"events": events} if events else None}):
        merged = _merge(merged, layer or {})
    return merged


def _from_root(paths: Any, key: str) -> list[str]:
    """Paths of a config start from the project root; absolute ones stay."""
    given = list(paths) if isinstance(paths, list | tuple) else [paths]
    for path in given:
        if not isinstance(path, str):
            raise InputError(f"ingest.{key} is {paths!r}; give a path, a folder or a glob as text, or a list of them.")
    return [str(project_root() / Path(path).expanduser()) for path in given]


def _find(path: str | Path) -> Path:
    """A config as given, or relative to the project root or the checkout: a worker starts elsewhere."""
    for folder in (Path.cwd(), project_root(), checkout() or project_root()):
        candidate = folder / Path(path).expanduser()
        if candidate.is_file():
            return candidate
    raise InputError(
        f"The config file '{path}' does not exist; give the path of a TOML file, for example configs/synthetic.toml."
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"The config file '{path}' is not valid TOML: {error}.") from None


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        elif value is not None:
            merged[key] = value
    return merged


def _expanded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _expanded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    return _VARIABLE.sub(_variable, value) if isinstance(value, str) else value


def _variable(match: re.Match[str]) -> str:
    name, default = match["name"], match["default"]
    found = os.environ.get(name) or default
    if found is None:
        raise InputError(
            f"The config uses the environment variable {name}, which is not set; set it, or write ${{{name}:-default}}."
        )
    return found
