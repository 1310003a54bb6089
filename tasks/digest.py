"""SHA-256 digests of files, of JSON and of code: what a stage's key is made of."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import grimp

from tasks.outside import imported_names, own_modules, reexported, syntax_tree

PACKAGES = ("flows", "tasks", "registry", "trainers", "evaluation", "models", "data")


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """Digest of the canonical JSON text: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def as_json(value: Any) -> Any:
    """The value as it comes back from a JSON file: tuples are lists, and what JSON does not know is its text."""
    return json.loads(json.dumps(value, default=str))


def code_digests(entry_modules: Iterable[str]) -> dict[str, str]:
    """Digest of every module of the project that the entry modules are or import, by module name.

    The imports are found by static analysis, so nothing is imported here. A module outside the project (a custom
    trainer's) is digested too, with what it imports of its own package, or from beside it where it is not installed.
    """
    reached: set[str] = set()
    for module in entry_modules:
        reached |= {module} | _imported_by(module)
    return {module: _module_digest(module) for module in sorted(reached)}


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
def _module_digest(module: str) -> str:
    """Digest of the syntax tree without docstrings: a comment, a docstring or a line break changes nothing."""
    return hashlib.sha256(ast.dump(_without_docstrings(syntax_tree(module))).encode()).hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree
