"""Which keys a search varies, over what, and which values go together."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from data.config import Config, unknown_name
from data.errors import InputError
from data.search import Choices, Space, space_of, spaces
from tasks.run_config import RunConfig

logger = logging.getLogger(__name__)

Values = dict[str, Any]
"""A value for each searched key, by the key's name."""

FROM_THE_GRAPH = {"num_users": 1, "num_songs": 1, "num_artists": 0}
NOT_SEARCHED = {
    *("eval_k", "monitor", "num_eval_users", "val_ratio", "test_ratio", "seed"),  # another yardstick each time
    *("architecture", "device", "resume", "histograms"),
}
SIGNIFICANT_DIGITS = 3
"""Of a value from a range: a tuned config is read by people, and no result hangs on the fourth digit."""

MOST_COMBINATIONS = 10_000


@dataclass(frozen=True)
class SearchedKey:
    """One key of ``[model]`` or ``[training]`` that a search varies.

    ``name`` is the key's own, or ``table.key`` where both tables have such a key. ``start`` is its value in the config
    as it is.
    """

    name: str
    table: Literal["model", "training"]
    key: str
    space: Space
    whole: bool
    start: Any

    def rounded(self, value: Any) -> Any:
        """A drawn value as a trial uses it."""
        if isinstance(self.space, Choices) or self.whole:
            return value
        short = float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        return min(max(short, self.space.low), self.space.high)

    def nearest(self, value: Any) -> Any:
        """The value of the space that stands for ``value``: itself, or the bound that is next to it."""
        if isinstance(self.space, Choices):
            return value
        number = value if isinstance(value, int | float) else self.space.low
        inside = min(max(number, self.space.low), self.space.high)
        return int(inside) if self.whole else float(inside)


@dataclass(frozen=True)
class SearchSpace:
    """The keys that a search of ``run`` varies; ``search_space`` makes one."""

    run: RunConfig
    keys: tuple[SearchedKey, ...]

    @property
    def start(self) -> Values:
        """The values of the config as it is."""
        return {key.name: key.start for key in self.keys}

    def only(self, *keys: SearchedKey) -> SearchSpace:
        """The space of these keys, the others as the run has them."""
        return SearchSpace(self.run, keys)

    def tables(self, values: Values) -> dict[str, dict[str, Any]]:
        """The tables ``model`` and ``training`` of the run with ``values`` in them."""
        tables = {"model": dict(self.run.model), "training": dict(self.run.training)}
        for key in self.keys:
            tables[key.table][key.key] = values[key.name]
        return tables

    def refusal(self, values: Values) -> str | None:
        """Why these values do not go together, in a sentence; None where they do."""
        try:
            _parse(self.run.trainer, **self.tables(values))
        except InputError as error:
            return str(error)
        return None

    def changed(self, values: Values) -> Values:
        """Those that differ from the start."""
        return {name: value for name, value in values.items() if value != self.start[name]}

    def combinations(self) -> list[Values] | None:
        """All allowed combinations where there are finitely many, and not too many to list; else None."""
        listed = [list(_listed(key)) for key in self.keys]
        size = math.prod(len(values) for values in listed)
        if not 0 < size <= MOST_COMBINATIONS:
            return None
        names = [key.name for key in self.keys]
        found = (dict(zip(names, values, strict=True)) for values in itertools.product(*listed))
        return [values for values in found if self.refusal(values) is None]

    def described(self) -> dict[str, Any]:
        """Plain values that say what is searched: part of what makes two searches the same one."""
        return {key.name: repr(key.space) for key in self.keys}


def search_space(run: RunConfig) -> SearchSpace:
    """The keys of the chosen trainer and architecture that are searched: those of ``tune.search``, or all with a space.

    A key that no value of its space is allowed for in this config (``num_negatives`` beside ``loss = "bpr"``) is left
    out, which is logged; if it was asked for by name, that is an error.

    Raises:
        InputError: the config is not valid, or ``tune`` names a key that does not exist, may not be searched or says
            nowhere over what; or nothing is left to search.
    """
    known = _known_fields(run)
    for name in (*run.tune.search, *run.tune.space):
        _check_name(name, known)
    over = {name: field.declared for name, field in known.items() if field.declared}
    over |= {name: space_of(given, f"tune.space.{name}") for name, given in run.tune.space.items()}
    keys = tuple(known[name].searched(name, _space(name, over)) for name in run.tune.search or over)
    allowed = tuple(key for key in keys if _can_vary(SearchSpace(run, keys), key))
    if not allowed:
        raise InputError(
            f"Nothing is left to search: no key of the trainer '{run.trainer}' and this model says over what; "
            "give tune.space.KEY, a list of choices or a range."
        )
    return SearchSpace(run, allowed)


@dataclass(frozen=True)
class _Field:
    """A key that could be searched, and what its class says about that."""

    table: Literal["model", "training"]
    key: str
    declared: Space | None
    whole: bool
    start: Any

    def searched(self, name: str, space: Space) -> SearchedKey:
        """With the start's value among the choices, so that trials can keep it."""
        if isinstance(space, Choices) and self.start not in space.values:
            space = Choices(*space.values, self.start)
        return SearchedKey(name, self.table, self.key, space, self.whole, self.start)


def _known_fields(run: RunConfig) -> dict[str, _Field]:
    model, training = _parse(run.trainer, run.model, run.training)
    shared = set(type(model).model_fields) & set(type(training).model_fields)
    fields = [*_fields("model", model), *_fields("training", training)]
    return {f"{field.table}.{field.key}" if field.key in shared else field.key: field for field in fields}


def _fields(table: Literal["model", "training"], config: Config) -> Iterator[_Field]:
    declared = spaces(type(config))
    for key, field in type(config).model_fields.items():
        if key not in FROM_THE_GRAPH:
            whole = int in (field.annotation, *get_args(field.annotation))
            yield _Field(table, key, declared.get(key), whole, getattr(config, key))


def _check_name(name: str, known: Mapping[str, _Field]) -> None:
    searchable = [other for other, field in known.items() if field.key not in NOT_SEARCHED]
    if name not in known:
        raise InputError(unknown_name("The chosen trainer and architecture have no key", name, searchable))
    if name not in searchable:
        raise InputError(
            f"'{name}' cannot be searched: it decides how or on what a trial is measured, not how good the model is."
        )


def _space(name: str, over: Mapping[str, Space]) -> Space:
    if name not in over:
        raise InputError(
            f"'{name}' has no search space; give tune.space.{name}, a list of choices or a range, "
            f"or search other keys: {', '.join(sorted(over))}."
        )
    return over[name]


def _can_vary(space: SearchSpace, key: SearchedKey) -> bool:
    """Whether another value of the key than its start is allowed, beside the start or another value of a second key."""
    tune = space.run.tune
    refusals = [space.only(key).refusal({key.name: value}) for value in _ends(key) if value != key.start]
    if None in refusals or _goes_with_another(space, key):
        return True
    why = refusals[0] if refusals else f"its only value is {key.start!r}."
    if key.name in (*tune.search, *tune.space):
        raise InputError(f"'{key.name}' cannot be searched in this config: {why}")
    logger.info("%s is not searched: %s", key.name, why)
    return False


def _goes_with_another(space: SearchSpace, key: SearchedKey) -> bool:
    pairs = (
        space.only(key, other).refusal({key.name: value, other.name: beside})
        for value in _ends(key)
        for other in space.keys
        for beside in _ends(other)
        if other != key and value != key.start
    )
    return None in pairs


def _ends(key: SearchedKey) -> tuple[Any, ...]:
    return key.space.values if isinstance(key.space, Choices) else (key.space.low, key.space.high)


def _parse(trainer: str, model: Mapping[str, Any], training: Mapping[str, Any]) -> tuple[Config, Config]:
    from models.factory import parse_model_config
    from trainers.factory import parse_training_config

    return parse_model_config({**FROM_THE_GRAPH, **model}), parse_training_config(trainer, training)


def _listed(key: SearchedKey) -> Iterator[Any]:
    """The values of a space that has finitely many; none otherwise."""
    if isinstance(key.space, Choices):
        yield from key.space.values
    elif key.whole:
        yield from range(int(key.space.low), int(key.space.high) + 1)
