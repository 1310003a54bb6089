"""Digests of code: one rule for "which code made this result", for the keys of stages and for checkpoints."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from data.code.imports import has_source, imported_names, own_modules, reexported, source_file

PACKAGES = ("flows", "tasks", "registry", "trainers", "evaluation", "models", "data")
"""The project's top-level packages."""
LIBRARIES = {"torch", *sys.stdlib_module_names}
"""Base classes in these top-level modules are not digested: their version counts, not their code."""

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_digests(entry_modules: Iterable[str]) -> dict[str, str]:
    """Return the digests of the entry modules and of all modules of the project that they import, by module name.

    Static analysis finds the imports, so nothing is imported here. A module outside the project (a custom trainer) is
    digested too, with its imports from its own package and, if it is not installed, from its own folder. Comments,
    docstrings and line breaks do not count.
    """
    reached: set[str] = set()
    for module in entry_modules:
        reached |= {module} | _imported_by(module)
    return {module: _syntax_digest(source_file(module).read_bytes()) for module in sorted(reached)}


def class_digests(classes: Iterable[type]) -> dict[str, str]:
    """Return the digests of the modules of classes and of their base classes, and of all that these modules import.

    If the module of a class cannot be found by name (a script, a test), its file is digested. A class without a file
    (in a notebook) is skipped; its base classes are not.
    """
    modules = {base.__module__ for found in classes for base in found.__mro__}
    own = {name for name in modules if name.split(".")[0] not in LIBRARIES}
    named = {name for name in own if has_source(name)}
    files = {name: getattr(sys.modules[name], "__file__", None) for name in own - named}
    scripts = {name: _syntax_digest(Path(file).read_bytes()) for name, file in files.items() if file}
    return code_digests(named) | scripts


@cache
def _import_graph() -> Any:
    import grimp  # Flower's environment, where nothing is digested, has no grimp

    return grimp.build_graph(*PACKAGES, cache_dir=None)


def _imported_by(module: str) -> set[str]:
    graph = _import_graph()
    if module in graph.modules:
        return graph.find_upstream_modules(module)
    theirs = own_modules(module, excluded=graph.modules)
    named = {name for found in theirs for name in imported_names(found)}
    direct = {name for name in named | reexported(named, PACKAGES) if name in graph.modules}
    return theirs | direct | {deep for name in direct for deep in graph.find_upstream_modules(name)}


@cache
def _syntax_digest(source: bytes) -> str:
    """Return the digest of the syntax tree without docstrings; cached, because parsing all our code takes 0.3 s."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
