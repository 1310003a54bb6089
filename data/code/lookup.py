"""Finds a class by name: from a table, from the entry points of an installed package, or as ``package.module:Class``.

Only the module of that class is imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from data.config import unknown_name
from data.errors import InputError


def find_class(what: str, name: str, table: Mapping[str, str], base: type, group: str | None = None) -> Any:
    """Import and return the class that ``name`` stands for.

    Args:
        what: the word for the class in an error, for example ``trainer``.
        name: a key of ``table``, an entry point of ``group``, or any class as ``package.module:Class``.
        table: short names and their ``module:Class``.
        base: the result must be a subclass of this class.
        group: group of entry points in which installed packages add names; None if they cannot.

    Raises:
        InputError: the name is unknown, cannot be imported, or is not a subclass of ``base``.
    """
    path = class_path(what, name, table, group)
    return require_subclass(what, _import_class(what, path), base)


def require_subclass(what: str, found: object, base: type) -> Any:
    """Return ``found`` if it is a subclass of ``base``; raises InputError otherwise."""
    if not (isinstance(found, type) and issubclass(found, base)):
        name = getattr(found, "__qualname__", repr(found))
        raise InputError(f"The {what} {name} is not a subclass of {base.__name__}; inherit from it.")
    return found


def class_path(what: str, name: str, table: Mapping[str, str], group: str | None = None) -> str:
    """Return ``module:Class`` for ``name`` without importing it; see ``find_class``.

    Names of ``table`` come first, so that no installed package can replace one.

    Raises:
        InputError: for a short name that is unknown, or that two installed packages use.
    """
    if ":" in name:
        return name
    if name in table:
        return table[name]
    installed = _installed_names(group) if group else {}
    if name not in installed:
        raise InputError(unknown_name(f"There is no {what}", name, [*table, *installed, "package.module:Class"]))
    if len(installed[name]) > 1:
        raise InputError(
            f"The {what} '{name}' is brought by several installed packages, as {' and '.join(installed[name])}; "
            "name one of them in this long form."
        )
    return installed[name][0]


def _installed_names(group: str) -> dict[str, list[str]]:
    """Return the names of a group of entry points, each with all the ``module:Class`` that it stands for."""
    found: dict[str, list[str]] = {}
    for point in entry_points(group=group):
        paths = found.setdefault(point.name, [])
        path = f"{point.module}:{point.attr}"
        if path not in paths:  # an editable install may be listed twice
            paths.append(path)
    return found


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
