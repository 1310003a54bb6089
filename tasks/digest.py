"""SHA-256 digests of files, of JSON and of code: what a stage's key is made of."""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import json
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import grimp

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
    trainer's) is digested too, without what it imports outside the project.
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
    direct = {name for name in _absolute_imports(_tree(module)) if name in graph.modules}
    return direct | {deep for name in direct for deep in graph.find_upstream_modules(name)}


def _absolute_imports(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def _module_digest(module: str) -> str:
    """Digest of the syntax tree without docstrings: a comment, a docstring or a line break changes nothing."""
    return hashlib.sha256(ast.dump(_without_docstrings(_tree(module))).encode()).hexdigest()


def _tree(module: str) -> ast.Module:
    return ast.parse(_source_file(module).read_bytes())


def _source_file(module: str) -> Path:
    """The module's file, found without importing its parents (they may import torch)."""
    path: list[str] | None = None
    name, spec = "", None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = importlib.machinery.PathFinder.find_spec(name, path) or _editable_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        path = list(spec.submodule_search_locations or [])
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"Module '{module}' has no source file", name=module)
    return Path(spec.origin)


def _editable_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Editable installs put their packages behind a finder of their own, which PathFinder does not ask."""
    if "." in name:
        return None
    finders = (finder for finder in sys.meta_path if finder is not importlib.machinery.PathFinder)
    specs = (finder.find_spec(name, None, None) for finder in finders)
    return next((spec for spec in specs if spec is not None), None)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree
