"""What a search of hyper-parameters may try for a key, declared beside the field that it is about.

A field of a ``Config`` class is searched once it says where, as in ``lr: Annotated[float, Range(1e-3, 0.1)] = 0.01``.
Nothing here checks a value: a person may set any that the field allows. ``flows.tune`` reads the declarations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.config import Config
from data.errors import InputError


@dataclass(frozen=True)
class Range:
    """Every number from ``low`` to ``high``, both included; whole ones where the field is a whole number.

    Args:
        log: whether 0.001 to 0.01 is as likely as 0.01 to 0.1.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low}, which has to be less than high, {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}, but a range with log = true begins above 0")


@dataclass(frozen=True)
class Choices:
    """A few values, none nearer to one than to another."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", values)


Space = Range | Choices


def spaces(kind: type[Config]) -> dict[str, Space]:
    """The fields of a config class, inherited ones included, that say where to search, with what they say."""
    found = ((key, said) for key, field in kind.model_fields.items() for said in field.metadata)
    return {key: said for key, said in found if isinstance(said, Range | Choices)}


def space_of(given: Any, what: str) -> Space:
    """A space as a config file writes it: a list of choices, or a table with ``low``, ``high`` and perhaps ``log``.

    Args:
        what: what to call it in an error, for example ``tune.space.lr``.

    Raises:
        InputError: for anything else, and for a range that holds no number.
    """
    if _is_choices(given):
        return Choices(*given)
    if not _is_range(given):
        raise InputError(
            f"{what} is {given!r}; give a list of choices, as [0.1, 0.2], or a range, as "
            "{ low = 0.001, high = 0.1, log = true }."
        )
    try:
        return Range(**given)
    except ValueError as error:
        raise InputError(f"{what}: {error}.") from None


def _is_choices(given: Any) -> bool:
    plain = isinstance(given, list | tuple) and all(isinstance(value, bool | int | float | str) for value in given)
    return plain and len(given) > 0


def _is_range(given: Any) -> bool:
    if not isinstance(given, Mapping) or not {"low", "high"} <= set(given) <= {"low", "high", "log"}:
        return False
    numbers = all(isinstance(given[key], int | float) and not isinstance(given[key], bool) for key in ("low", "high"))
    return numbers and isinstance(given.get("log", False), bool)
