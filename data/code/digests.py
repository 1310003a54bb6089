"""Digests of code: the one rule for "which code made this", for a stage's key and for a checkpoint."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import grimp

from data.code.imports import has_source, imported_names, own_modules, reexported, source_file

PACKAGES = ("flows", "tasks", "registry", "trainers", "evaluation", "models", "data")
"""The project's top-level packages."""
LIBRARIES = {"torch", *sys.stdlib_module_names}
"""Top-level modules of base classes whose version counts, and not their text."""

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_digests(entry_modules: Iterable[str]) -> dict[str, str]:
    """Return the digest of every module of the project that the entry modules are or import, by module name.

    Static analysis finds the imports, so nothing is imported here. A module outside the project (a custom trainer's)
    is digested too, with what it imports of its own package, or from the folder that it lies in if it is not installed.
    Comments, docstrings and line breaks do not count.
    """
    reached: set[str] = set()
    for module in entry_modules:
        reached |= {module} | _imported_by(module)
    return {module: _syntax_digest(source_file(module).read_bytes()) for module in sorted(reached)}


def class_digests(classes: Iterable[type]) -> dict[str, str]:
    """Return the digests of the modules of classes and of their base classes, with all that these modules import.

    A class whose module cannot be found by its name (a script, a test) counts by its file. A class without a file (a
    notebook's) does not count, only its base classes do.
    """
    modules = {base.__module__ for found in classes for base in found.__mro__}
    own = {name for name in modules if name.split(".")[0] not in LIBRARIES}
    named = {name for name in own if has_source(name)}
    files = {name: getattr(sys.modules[name], "__file__", None) for name in own - named}
    scripts = {name: _syntax_digest(Path(file).read_bytes()) for name, file in files.items() if file}
    return code_digests(named) | scripts


@cache
def _import_graph() -> Any:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def _imported_by(module: str) -> set[str]:
    graph = _import_graph()
    if module in graph.modules:
        return graph.find_upstream_modules(module)
    theirs = own_modules(module, apart=graph.modules)
    named = {name for found in theirs for name in imported_names(found)}
    direct = {name for name in named | reexported(named, PACKAGES) if name in graph.modules}
    return theirs | direct | {deep for name in direct for deep in graph.find_upstream_modules(name)}


@cache
def _syntax_digest(source: bytes) -> str:
    """Digest of the syntax tree without docstrings, computed once for each text: parsing all of ours takes 0.3 s."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
