"""The configuration of one run: a TOML file, overridden by the command line or a deployment's parameters."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, PrivateAttr

from data.config import Config, log_new_name
from data.errors import InputError
from data.events.ingest_config import IngestConfig
from data.events.log_files import find_files
from data.project import checkout, project_root
from data.split import SplitConfig
from data.synthetic.log import SyntheticConfig
from data.weights import WeightConfig
from registry.gate.gate_config import GateConfig
from tasks.tuning_config import TuneConfig

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}")


Table = dict[str, Any]

MOVED_KEYS = {
    "training.val_ratio": "split.val_ratio",
    "training.test_ratio": "split.test_ratio",
    "training.eval_k": "evaluation.k",
}
"""Old name of a key to its new one; both work. A trainer's own ``training_config`` keeps the trainer guide's names."""


class EvaluationConfig(Config):
    """How the evaluate stage scores the model that the train stage chose."""

    renamed_keys: ClassVar[Mapping[str, str]] = {"more_ks": "ks"}

    k: PositiveInt = 10
    """Length of the list that decides: which epoch is the best, what the summary shows, what the gate compares."""
    ks: tuple[PositiveInt, ...] = ()
    """Further lengths of the list to report."""
    num_eval_users: int | None = Field(None, ge=1000)
    """Users to score, sampled once with the seed; none means every user with a held-out song. At least 1,000."""
    seed: int = 0
    """Seed of the sample of users and of the bootstrap."""
    conventions: tuple[Literal["lightgcn", "min_k", "kgat"], ...] = ()
    """Definitions of other papers to report too, so that their tables can be compared with."""


class RunConfig(Config):
    """Everything that decides what a run computes.

    The tables are typed objects, parsed when the config is read. Only ``model`` and ``training`` stay plain dicts:
    their classes belong to the chosen model and trainer, which import torch.
    """

    name: str = Field("songgraph", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the registered model; logs that should not compete have different names."""
    trainer: str = "advanced"
    """A name from the table of trainers, or ``package.module:Class``."""
    num_epochs: int = Field(20, ge=1)
    """Epochs at most; AdvancedTrainer may stop earlier."""
    synthetic: SyntheticConfig = SyntheticConfig()
    """The made-up log that is used if ``ingest.events`` names none (see ``data/synthetic/log.py``)."""
    ingest: IngestConfig = IngestConfig()
    """Where the log is, its columns and its filters (see ``data/events/ingest_config.py``)."""
    weights: WeightConfig = WeightConfig()
    """How plays, completion and age become a listen's weight (see ``data/weights.py``)."""
    split: SplitConfig = SplitConfig()
    """Strategy, ratios and salt (see ``data/split.py``)."""
    model: Table = Field(default_factory=dict)
    """The trainer guide's ``model_config``, without the node counts, which the graph gives."""
    training: Table = Field(default_factory=dict)
    """The trainer guide's ``training_config``."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How the result is scored."""
    baselines: Literal["none", "fast", "all"] = "fast"
    """What to compare with: popularity alone, what is fitted in seconds, or all (``evaluation/baselines``)."""
    seeds: int = Field(1, ge=1)
    """How many models to train, that differ by their seed only; five tell a difference from chance."""
    refit: bool = False
    """Whether the winning configuration is trained once more on all listens, and that model is published."""
    gate: GateConfig = GateConfig()
    """When a new model takes the champion's place (see ``registry/gate/gate_config.py``)."""
    tune: TuneConfig = TuneConfig()
    """How ``flows.tune`` searches; a training run does not read it."""
    timeout_minutes: float | None = Field(None, gt=0)
    """A stage that takes longer fails; none means no limit."""

    _variables: tuple[str, ...] = PrivateAttr(())
    _variant: str = PrivateAttr("")

    @classmethod
    def parse(cls, given: Mapping[str, Any], where: str) -> Self:
        """Validate a whole config, table by table, so that an error names the table."""
        given = _with_moved_keys(given)
        typed: Table = {}
        for name, field in cls.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, Config) and isinstance(given.get(name), Mapping):
                typed[name] = kind.parse(given[name], name)
        return super().parse({**given, **typed}, where)

    @property
    def remembered_as(self) -> str:
        """Return the name under which stages remember what they used last; each further seed has its own."""
        return f"{self.name}{self._variant}"

    @property
    def uses_synthetic_log(self) -> bool:
        """Return whether no log is given, so that the run makes one up."""
        return not self.ingest.events

    def log_files(self) -> list[Path]:
        """Find the files that the log consists of now.

        Raises:
            InputError: a file is missing, or a glob matches none; an environment variable that the config took part
                of the path from is named.
        """
        try:
            return find_files(self.ingest)
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
    return run


def merged_tables(
    path: str | Path | None = None, *layers: Mapping[str, Any] | None, events: str | list[str] | None = None
) -> Table:
    """Return the file with the layers laid over it as ``load_run_config`` does; variables stay, nothing is checked.

    Raises:
        InputError: for a missing or malformed file.
    """
    merged = _read_toml(_find(path)) if path else {}
    for layer in (*layers, {"ingest": {"events": events} if events else None}):
        merged = _merge(merged, layer or {})
    return merged


def _with_moved_keys(given: Mapping[str, Any]) -> Table:
    """Return the config with what one table takes from another.

    The ratios are the split's and k is the evaluation's. The trainer guide has both in ``training``: they are taken
    from there too, and the trainer gets k, by which it chooses the best epoch. Paths start from the project root. Under
    a temporal split the filters of ingest count only what was played before the cut, so ingest gets the cut.
    """
    tables: dict[str, Table] = {
        name: dict(given[name]) if isinstance(given.get(name), Mapping) else {}
        for name in ("training", "split", "evaluation", "ingest")
    }
    training, split, evaluation, ingest = tables.values()
    for old, new in MOVED_KEYS.items():
        _move_key(tables, old, new)
    if "k" in evaluation:
        training["eval_k"] = evaluation["k"]
    ingest |= {key: _from_root(ingest[key], key) for key in ("events", "track_artists") if ingest.get(key)}
    filters = ingest.get("min_user_songs") or ingest.get("min_song_users")
    if filters and split.get("strategy") == "temporal":
        ingest["cut"] = SplitConfig.parse(split, "split").cut().model_dump()
    return {**given, **{name: table for name, table in tables.items() if table}}


def _move_key(tables: Mapping[str, Table], old: str, new: str) -> None:
    (old_table, old_key), (new_table, new_key) = old.split("."), new.split(".")
    if old_key not in tables[old_table]:
        return
    value = tables[old_table].pop(old_key)
    if new_key not in tables[new_table]:
        log_new_name(old, new)
    if tables[new_table].setdefault(new_key, value) != value:
        raise InputError(f"{old} is {value!r}, but {new} is {tables[new_table][new_key]!r}; give only {new}.")


def _from_root(paths: Any, key: str) -> list[str]:
    """Return paths from the project root; absolute ones stay."""
    given = list(paths) if isinstance(paths, list | tuple) else [paths]
    for path in given:
        if not isinstance(path, str):
            raise InputError(f"ingest.{key} is {paths!r}; give a path, a folder or a glob as text, or a list of them.")
    return [str(project_root() / Path(path).expanduser()) for path in given]


def _find(path: str | Path) -> Path:
    """Return a config as given, or relative to the project root or the checkout: a worker starts elsewhere."""
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
