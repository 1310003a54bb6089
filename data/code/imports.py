"""Modules as text: where their source is and what they import, without importing any (they may import torch)."""

from __future__ import annotations

import ast
import importlib.machinery
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

INSTALLED = {"site-packages", "dist-packages"}


def own_modules(module: str, apart: Collection[str]) -> set[str]:
    """A module from outside the project and, of what it imports, whatever its author may be editing too.

    Those are the modules of its own package and, unless it is installed among all other libraries, those that lie
    beside it.

    Args:
        module: the module's name.
        apart: modules that are not looked into.
    """
    found: set[str] = set()
    waiting = {module, *_parents(module)}
    while waiting:
        current = waiting.pop()
        found.add(current)
        waiting |= {name for name in imported_names(current) if _is_beside(name, module)} - found - set(apart)
    return found


def imported_names(module: str) -> set[str]:
    """Whatever an import statement of a module names: modules, the packages they are in, and what is in them."""
    names: set[str] = set()
    for node in ast.walk(syntax_tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, module)
            names |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
    return names | {parent for name in names for parent in _parents(name)}


def reexported(names: Collection[str], packages: Iterable[str]) -> set[str]:
    """The modules behind names that packages re-export lazily: ``trainers.AdvancedTrainer`` is ``trainers.advanced``.

    A package that is imported as a whole stands for all of its names.
    """
    modules: set[str] = set()
    for package in packages:
        if package in names and source_file(package).with_suffix(".pyi").exists():
            public = {f"{package}.{name}": target for name, target in _lazy_names(package).items()}
            modules |= {public[name] for name in public if name in names} or set(public.values())
    return modules


def defining_module(module: str, name: str) -> str:
    """Return the module that defines ``name``, which ``module``, a package of ours, may re-export."""
    stub = source_file(module).with_suffix(".pyi")
    return _lazy_names(module).get(name, module) if stub.exists() else module


def syntax_tree(module: str) -> ast.Module:
    """A module's source, parsed."""
    return ast.parse(source_file(module).read_bytes())


def source_file(module: str) -> Path:
    """The module's file, found without importing its parents.

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
    """Whether there is a module of this name that is written in Python."""
    try:
        return source_file(module).suffix == ".py"
    except ModuleNotFoundError:
        return False


def _is_beside(name: str, module: str) -> bool:
    """Whether ``name`` is a module of the package of ``module``, or in the same folder, where no library is."""
    if not has_source(name):
        return False
    folder = _folder_of_package(name)
    same_package = name.partition(".")[0] == module.partition(".")[0]
    return folder == _folder_of_package(module) and (same_package or not INSTALLED & set(folder.parts))


def _folder_of_package(module: str) -> Path:
    """Where the top-level package or module of a module lies."""
    file = source_file(module)
    depth = module.count(".") + (file.stem == "__init__")
    return file.parents[min(depth, len(file.parents) - 1)]


def _parents(module: str) -> set[str]:
    """The packages around a module, whose code runs first; not those without any (namespace packages)."""
    parts = module.split(".")
    around = {".".join(parts[:end]) for end in range(1, len(parts))}
    return {package for package in around if has_source(package)}


def _origin(node: ast.ImportFrom, module: str) -> str:
    """The absolute name of what an import statement imports from."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if source_file(module).stem == "__init__" else module.split(".")[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def _lazy_names(package: str) -> dict[str, str]:
    """Return the public names of one of our packages and the modules that define them, as its stub lists them."""
    tree = ast.parse(source_file(package).with_suffix(".pyi").read_bytes())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: f"{package}.{node.module}" for node in imports for alias in node.names}


def _editable_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Editable installs put their packages behind a finder of their own, which PathFinder does not ask."""
    if "." in name:
        return None
    finders = (finder for finder in sys.meta_path if finder is not importlib.machinery.PathFinder)
    specs = (finder.find_spec(name, None, None) for finder in finders)
    return next((spec for spec in specs if spec is not None), None)
