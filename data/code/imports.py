"""Modules as text: finds their source files and their imports without importing them (they may import torch)."""

from __future__ import annotations

import ast
import importlib.machinery
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

INSTALLED = {"site-packages", "dist-packages"}


def own_modules(module: str, excluded: Collection[str]) -> set[str]:
    """Return a module from outside the project, and those of its imports that its author may edit too.

    Those are the modules of its own package and, unless they are installed as a library, those in the same folder.

    Args:
        module: the module's name.
        excluded: modules that are skipped, with their imports.
    """
    found: set[str] = set()
    waiting = {module, *_parents(module)}
    while waiting:
        current = waiting.pop()
        found.add(current)
        waiting |= {name for name in imported_names(current) if _is_beside(name, module)} - found - set(excluded)
    return found


def imported_names(module: str) -> set[str]:
    """Return all names in a module's import statements: modules, their packages, and what is imported from them."""
    names: set[str] = set()
    for node in ast.walk(syntax_tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, module)
            names |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
    return names | {parent for name in names for parent in _parents(name)}


def reexported(names: Collection[str], packages: Iterable[str]) -> set[str]:
    """Return the modules behind lazily re-exported names: ``trainers.AdvancedTrainer`` gives ``trainers.advanced``.

    If a package is imported as a whole, the modules of all its names are returned.
    """
    modules: set[str] = set()
    for package in packages:
        if package in names and source_file(package).with_suffix(".pyi").exists():
            public = {f"{package}.{name}": target for name, target in _lazy_names(package).items()}
            modules |= {public[name] for name in public if name in names} or set(public.values())
    return modules


def defining_module(module: str, name: str) -> str:
    """Return the module that defines ``name``; it differs from ``module`` if that is a package that re-exports it."""
    stub = source_file(module).with_suffix(".pyi")
    return _lazy_names(module).get(name, module) if stub.exists() else module


def syntax_tree(module: str) -> ast.Module:
    """Parse a module's source."""
    return ast.parse(source_file(module).read_bytes())


def source_file(module: str) -> Path:
    """Find the module's file without importing its packages.

    Raises:
        ModuleNotFoundError: there is no such module, or it has no source.
    """
    path: list[str] | None = None
    name, spec = "", None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        if part.isidentifier():
            spec = importlib.machinery.PathFinder.find_spec(name, path) or _editable_spec(name)
        if spec is None or not part.isidentifier():
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        path = list(spec.submodule_search_locations or [])
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"Module '{module}' has no source file", name=module)
    return Path(spec.origin)


def has_source(module: str) -> bool:
    """Return whether there is a module of this name that is written in Python."""
    try:
        return source_file(module).suffix == ".py"
    except ModuleNotFoundError:
        return False


def _is_beside(name: str, module: str) -> bool:
    """Return whether ``name`` is in the package of ``module``, or in the same folder and not installed as a library."""
    if not has_source(name):
        return False
    folder = _folder_of_package(name)
    same_package = name.partition(".")[0] == module.partition(".")[0]
    return folder == _folder_of_package(module) and (same_package or not INSTALLED & set(folder.parts))


def _folder_of_package(module: str) -> Path:
    """Return the folder of a module's top-level package."""
    file = source_file(module)
    depth = module.count(".") + (file.stem == "__init__")
    return file.parents[min(depth, len(file.parents) - 1)]


def _parents(module: str) -> set[str]:
    """Return the packages that contain a module, except namespace packages, which have no code."""
    parts = module.split(".")
    around = {".".join(parts[:end]) for end in range(1, len(parts))}
    return {package for package in around if has_source(package)}


def _origin(node: ast.ImportFrom, module: str) -> str:
    """Return the absolute name of the module that a statement imports from."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if source_file(module).stem == "__init__" else module.split(".")[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def _lazy_names(package: str) -> dict[str, str]:
    """Return the public names of one of our packages and the modules that define them, from its stub."""
    tree = ast.parse(source_file(package).with_suffix(".pyi").read_bytes())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: f"{package}.{node.module}" for node in imports for alias in node.names}


def _editable_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Find a package of an editable install, which has its own finder that PathFinder does not know."""
    if "." in name:
        return None
    finders = (finder for finder in sys.meta_path if finder is not importlib.machinery.PathFinder)
    specs = (finder.find_spec(name, None, None) for finder in finders)
    return next((spec for spec in specs if spec is not None), None)
