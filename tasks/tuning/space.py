"""Finds the keys that a search varies, the values that each may take, and the values that are not allowed together."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from data.config import Config, unknown_name
from data.errors import InputError
from data.search import Choices, Space, space_of, spaces
from tasks.run_config import RunConfig

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

logger = logging.getLogger(__name__)

Values = dict[str, Any]
"""One value for each searched key, by the key's name."""

FROM_THE_GRAPH = {"num_users": 1, "num_songs": 1, "num_artists": 0}
NOT_SEARCHED = {
    *(
        "eval_k",
        "monitor",
        "num_eval_users",
        "val_ratio",
        "test_ratio",
        "seed",
    ),  # each trial would be measured differently
    *("architecture", "device", "resume", "histograms"),
}
NO_SPACE = Choices()
SIGNIFICANT_DIGITS = 3
"""Digits of a value from a range: people read the winner's config, and no result depends on the fourth digit."""


@dataclass(frozen=True)
class SearchedKey:
    """A key of ``[model]`` or ``[training]`` that a search varies.

    Attributes:
        name: the key, or ``table.key`` if both tables have a key of this name.
        space: the values to try; ``NO_SPACE`` if nobody declared any.
        is_int: the key is a whole number.
        start: the value in the config as it is.
    """

    name: str
    table: Literal["model", "training"]
    key: str
    space: Space
    is_int: bool
    start: Any

    def distribution(self) -> BaseDistribution:
        """Return the space as Optuna takes it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if isinstance(self.space, Choices):
            return CategoricalDistribution(self.space.values)
        if self.is_int:
            return IntDistribution(int(self.space.low), int(self.space.high), log=self.space.log)
        return FloatDistribution(self.space.low, self.space.high, log=self.space.log)

    def rounded(self, value: Any) -> Any:
        """Return a value that Optuna drew as a trial uses it."""
        return value if isinstance(self.space, Choices) or self.is_int else float(f"{value:.{SIGNIFICANT_DIGITS}g}")

    def nearest(self) -> Any:
        """Return the value of the space that is nearest to the start: Optuna accepts no value outside a range."""
        if isinstance(self.space, Choices):
            return self.start
        start = self.start if isinstance(self.start, int | float) else self.space.low
        inside = min(max(start, self.space.low), self.space.high)
        return int(inside) if self.is_int else float(inside)


@dataclass(frozen=True)
class SearchSpace:
    """The keys that a search of ``run`` varies; ``search_space`` makes one."""

    run: RunConfig
    keys: tuple[SearchedKey, ...]

    @property
    def start(self) -> Values:
        """Return the values of the config as it is."""
        return {key.name: key.start for key in self.keys}

    def tables(self, values: Values) -> dict[str, dict[str, Any]]:
        """Return the tables ``model`` and ``training`` of the run with ``values`` in them."""
        tables = {"model": dict(self.run.model), "training": dict(self.run.training)}
        for key in self.keys:
            tables[key.table][key.key] = values[key.name]
        return tables

    def refusal(self, values: Values) -> str | None:
        """Return the sentence that says why these values are not allowed together; None if they are."""
        try:
            _parse(self.run.trainer, **self.tables(values))
        except InputError as error:
            return str(error)
        return None


def search_space(run: RunConfig) -> SearchSpace:
    """Return the keys to search: those in ``tune.search``, or all keys with a space.

    A key without an allowed value beside its start is left out, and the log says why: ``num_negatives`` with
    ``loss = "bpr"``. If the user asked for this key by name, that is an error.

    Raises:
        InputError: the config is not valid; ``tune`` names an unknown key, a key that may not be searched or a key
            without a space; or no key is left.
    """
    keys, tune = _known_keys(run), run.tune
    for name in (*tune.search, *tune.space):
        _check_name(name, keys)
    for name, given in tune.space.items():
        keys[name] = replace(keys[name], space=space_of(given, f"tune.space.{name}"))
    declared = [name for name, key in keys.items() if key.space != NO_SPACE]
    for name in tune.search:
        if name not in declared:
            raise InputError(
                f"'{name}' has no search space; give tune.space.{name}, a list of choices or a range, "
                f"or search other keys: {', '.join(sorted(declared))}."
            )
    searched = [_with_start(keys[name]) for name in tune.search or declared]
    allowed = tuple(key for key in searched if _can_vary(run, key))
    if not allowed:
        raise InputError(
            f"Nothing is left to search: no key of the trainer '{run.trainer}' and this model says over what; "
            "give tune.space.KEY, a list of choices or a range."
        )
    return SearchSpace(run, allowed)


def _known_keys(run: RunConfig) -> dict[str, SearchedKey]:
    """Return every key of the chosen trainer and architecture by its name, with the space that its class declares."""
    model, training = _parse(run.trainer, run.model, run.training)
    shared = set(type(model).model_fields) & set(type(training).model_fields)
    found = [*_keys_of("model", model), *_keys_of("training", training)]
    named = [replace(key, name=f"{key.table}.{key.key}") if key.key in shared else key for key in found]
    return {key.name: key for key in named}


def _keys_of(table: Literal["model", "training"], config: Config) -> Iterator[SearchedKey]:
    declared = spaces(type(config))
    for key, field in type(config).model_fields.items():
        if key not in FROM_THE_GRAPH:
            is_int = int in (field.annotation, *get_args(field.annotation))
            yield SearchedKey(key, table, key, declared.get(key, NO_SPACE), is_int, getattr(config, key))


def _check_name(name: str, keys: Mapping[str, SearchedKey]) -> None:
    searchable = [other for other, key in keys.items() if key.key not in NOT_SEARCHED]
    if name not in keys:
        raise InputError(unknown_name("The chosen trainer and architecture have no key", name, searchable))
    if name not in searchable:
        raise InputError(
            f"'{name}' cannot be searched: it decides how or on what a trial is measured, not how good the model is."
        )


def _with_start(key: SearchedKey) -> SearchedKey:
    """Put the start among the choices, so that a trial can keep it."""
    if isinstance(key.space, Choices) and key.start not in key.space.values:
        return replace(key, space=Choices(*key.space.values, key.start))
    return key


def _can_vary(run: RunConfig, key: SearchedKey) -> bool:
    """Return True if a value other than the start is allowed; all other keys stay as they are in the config."""
    ends = key.space.values if isinstance(key.space, Choices) else (key.space.low, key.space.high)
    alone = SearchSpace(run, (key,))
    refusals = [alone.refusal({key.name: value}) for value in ends if value != key.start]
    if None in refusals:
        return True
    why = refusals[0] if refusals else f"its only value is {key.start!r}."
    if key.name in (*run.tune.search, *run.tune.space):
        raise InputError(f"'{key.name}' cannot be searched in this config: {why}")
    logger.info("%s is not searched: %s", key.name, why)
    return False


def _parse(trainer: str, model: Mapping[str, Any], training: Mapping[str, Any]) -> tuple[Config, Config]:
    from models.factory import parse_model_config
    from trainers.factory import parse_training_config

    return parse_model_config({**FROM_THE_GRAPH, **model}), parse_training_config(trainer, training)
