"""The base of all configuration classes: frozen, typed, and strict about keys."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from data.errors import InputError

logger = logging.getLogger(__name__)


class Config(BaseModel):
    """A frozen configuration that refuses unknown keys; each subclass is next to the code that it configures."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    renamed_keys: ClassVar[Mapping[str, str]] = {}
    """Earlier names of keys, and their names now. An earlier name still works, and the log says the new one.

    A subclass with renamed keys of its own gives ``{**Base.renamed_keys, ...}``.
    """

    @model_validator(mode="before")
    @classmethod
    def _accept_earlier_names(cls, given: Any) -> Any:
        earlier = [key for key in cls.renamed_keys if key in given] if isinstance(given, Mapping) else []
        if not earlier:
            return given
        for key in earlier:
            if cls.renamed_keys[key] in given:
                raise ValueError(f"'{key}' is the earlier name of '{cls.renamed_keys[key]}'; give only the new one")
            log_new_name(key, cls.renamed_keys[key])
        return {cls.renamed_keys.get(key, key): value for key, value in given.items()}

    @classmethod
    def parse(cls, given: Mapping[str, Any], where: str) -> Self:
        """Validate ``given``, a plain dict.

        Args:
            given: keys and values as a person wrote them.
            where: the name of the dict in an error, for example ``training_config``.

        Raises:
            InputError: for an unknown key (the error names the nearest known one) or a value that is not allowed.
        """
        unknown = [key for key in given if key not in cls.model_fields and key not in cls.renamed_keys]
        if unknown:
            raise InputError(unknown_name(f"{where} has the unknown key", unknown[0], cls.model_fields))
        try:
            return cls.model_validate(dict(given))
        except ValidationError as error:
            raise InputError(_first_problem(error, where)) from None


class JsonRecord(Config):
    """A record in a JSON file; the same record gives the same bytes."""

    UNREADABLE: ClassVar[str] = "is not a readable record; make it again"
    """End of the error for a file that cannot be read: what it is not, and what to do."""

    def write(self, path: Path) -> None:
        """Write the record to ``path``."""
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record that ``write`` wrote; raises InputError if the file is missing or is not such a record."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise InputError(f"{path} {cls.UNREADABLE}.") from error


def unknown_name(what: str, given: str, allowed: Iterable[str]) -> str:
    """Return one sentence that refuses a name, suggests the nearest allowed one and lists all allowed ones."""
    names = sorted(allowed)
    nearest = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return f"{what} '{given}'.{hint} Allowed: {', '.join(names)}."


def flat(table: Mapping[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """Flatten nested tables: the keys of the result are the keys of all levels, joined by ``separator``."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        found |= flat(value, separator, f"{name}{separator}") if isinstance(value, Mapping) else {name: value}
    return found


@cache
def log_new_name(earlier: str, now: str) -> None:
    """Log the new name of a key, once in a process: a run parses its tables many times."""
    logger.warning("The key '%s' is now called '%s'; please use the new name.", earlier, now)


def _first_problem(error: ValidationError, where: str) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{where} has the unknown key '{key}'; remove it or correct its spelling."
    if problem["type"] == "missing":
        return f"{where} lacks the key '{key}', which has no default; add it."
    message = problem["msg"].removeprefix("Value error, ").removesuffix(".")
    if problem["type"] == "value_error" and not key:
        return f"{where}: {message}."
    return f"{where}.{key} is {problem['input']!r}: {message[0].lower() + message[1:]}."
