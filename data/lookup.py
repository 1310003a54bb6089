"""Finds a class by a name in a table or by ``package.module:Class``, and imports nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from data.config import unknown_name
from data.errors import InputError


def find_class(what: str, name: str, table: Mapping[str, str], base: type) -> Any:
    """The class that ``name`` stands for.

    Args:
        what: what to call the name in an error, for example ``trainer``.
        name: a key of ``table``, or ``package.module:Class`` for a class that lives anywhere.
        table: short names and the ``module:Class`` each stands for.
        base: the class that the result has to be a subclass of.

    Raises:
        InputError: for a name that is not known, cannot be imported, or is no subclass of ``base``.
    """
    path = class_path(what, name, table)
    return require_subclass(what, _import_class(what, path), base)


def require_subclass(what: str, found: object, base: type) -> Any:
    """``found`` itself if it is a class under ``base``; raises InputError otherwise."""
    if not (isinstance(found, type) and issubclass(found, base)):
        name = getattr(found, "__qualname__", repr(found))
        raise InputError(f"The {what} {name} is not a subclass of {base.__name__}; inherit from it.")
    return found


def class_path(what: str, name: str, table: Mapping[str, str]) -> str:
    """``module:Class`` for ``name``, without importing it; raises InputError for an unknown short name."""
    if ":" in name:
        return name
    if name not in table:
        raise InputError(unknown_name(f"There is no {what}", name, [*table, "package.module:Class"]))
    return table[name]


def _import_class(what: str, path: str) -> object:
    module_name, _, class_name = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        raise InputError(f"The {what} '{path}' cannot be imported ({error}); install it or correct the name.") from None
    except AttributeError:
        raise InputError(f"The {what} '{path}' does not exist: '{module_name}' has no '{class_name}'.") from None
    except ValueError:
        raise InputError(f"The {what} '{path}' is not of the form package.module:Class.") from None
