"""Finds a class by its name in a table, by the name that an installed package gives it, or by ``package.module:Class``.

Nothing but that class is imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from data.config import unknown_name
from data.errors import InputError


def find_class(what: str, name: str, table: Mapping[str, str], base: type, group: str | None = None) -> Any:
    """The class that ``name`` stands for.

    Args:
        what: what to call the name in an error, for example ``trainer``.
        name: a key of ``table``, a name of ``group``, or ``package.module:Class`` for a class that lives anywhere.
        table: short names and the ``module:Class`` each stands for.
        base: the class that the result has to be a subclass of.
        group: entry points by which installed packages add names; none if nobody may.

    Raises:
        InputError: for a name that is not known, cannot be imported, or is no subclass of ``base``.
    """
    path = class_path(what, name, table, group)
    return require_subclass(what, _import_class(what, path), base)


def require_subclass(what: str, found: object, base: type) -> Any:
    """``found`` itself if it is a class under ``base``; raises InputError otherwise."""
    if not (isinstance(found, type) and issubclass(found, base)):
        name = getattr(found, "__qualname__", repr(found))
        raise InputError(f"The {what} {name} is not a subclass of {base.__name__}; inherit from it.")
    return found


def class_path(what: str, name: str, table: Mapping[str, str], group: str | None = None) -> str:
    """``module:Class`` for ``name``, without importing it; see ``find_class``.

    Installed packages are asked last, so none of them can take a name of ``table``.

    Raises:
        InputError: for a short name that nobody has, or that two installed packages have.
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
    """Names of a group of entry points, and the different ``module:Class`` that each stands for."""
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
