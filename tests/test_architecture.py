"""The shape of the project: who may import whom, what a stage's key covers, and what is nowhere in the code."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import Flow, Task

from data.code.digests import PACKAGES, code_digests
from evaluation.baselines.choices import BASELINES
from models.architectures import MODELS
from tasks.cache.stage import Stage
from trainers.names import TRAINERS

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDERS = (*PACKAGES, "benchmarks")
SOURCES = sorted(path for folder in FOLDERS for path in (CHECKOUT / folder).rglob("*.py"))
LIBRARY = ("data", "models", "evaluation", "trainers", "registry")
STAGES = {
    "synthesize", "ingest", "graph", "split", "warm-start", "audit", "validation", "train",
    *(f"baseline-{name}" for name in BASELINES), "evaluate", "seeds", "refit", "register", "report",
}  # fmt: skip

NOT_IN_A_RESULT = {
    "data.digest": "digests, which are part of the key themselves",
    "data.errors": "text of errors",
    "data.project": "where things are",
    "registry.backend.location": "where the registry is; its address is part of the config",
    "evaluation.baselines.choices": "names of baselines; each one's module is part of its key",
    "models.architectures": "names of models; the chosen one's module is part of the key",
}
"""Modules that a stage's file may use outside of the stage's key, and why."""


def stages() -> list[tuple[str, Stage]]:
    """All stages, each behind the module that it is in, also those in a table."""
    modules = [module_of(path) for path in (CHECKOUT / "tasks").rglob("*.py") if path.stem != "__init__"]
    found = [(module, value) for module in modules for value in vars(importlib.import_module(module)).values()]
    tables = [(module, list(value.values()) if isinstance(value, dict) else [value]) for module, value in found]
    return [(module, value) for module, values in tables for value in values if isinstance(value, Stage)]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)


@pytest.mark.slow
def test_imports_point_one_way() -> None:
    lint = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    ended = subprocess.run([sys.executable, "-c", lint], cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout
    assert "0 broken" in ended.stdout


def test_there_is_a_stage_for_each_step() -> None:
    assert {stage.name for _, stage in stages()} == STAGES


@pytest.mark.parametrize(("module", "stage"), stages(), ids=lambda value: getattr(value, "name", ""))
def test_a_stages_key_covers_the_library_modules_that_it_uses(module: str, stage: Stage) -> None:
    covered = set(code_digests(stage.code)) | set(NOT_IN_A_RESULT)
    assert library_imports(module) - covered == set()


def test_a_forgotten_entry_would_be_noticed() -> None:
    assert "data.graph" in library_imports("tasks.stages.split")
    assert "data.graph" not in code_digests(("data.split",))


def library_imports(module: str) -> set[str]:
    """Modules of the library that the source of ``module`` imports, at its top or inside of functions."""
    tree = ast.parse((CHECKOUT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module)
    return {node.module for node in imports if node.module.split(".")[0] in LIBRARY}


@pytest.mark.parametrize("path", [*MODELS.values(), *TRAINERS.values()])
def test_what_a_table_names_is_there(path: str) -> None:
    module, _, name = path.partition(":")
    assert isinstance(getattr(importlib.import_module(module), name), type)


def test_every_task_and_flow_keeps_its_result_as_json() -> None:
    found = list(prefect_objects())
    assert {type(item).__name__ for item in found} == {"Task", "Flow"}
    for item in found:
        assert item.persist_result is True, item.name
        assert item.result_serializer == "json", item.name


def prefect_objects() -> Iterator[Flow | Task]:
    for path in SOURCES:
        if path.relative_to(CHECKOUT).parts[0] in ("flows", "tasks") and path.stem != "__init__":
            module = importlib.import_module(module_of(path))
            yield from (value for value in vars(module).values() if isinstance(value, Flow | Task))


@pytest.mark.parametrize(
    "forbidden",
    [r"pickle\.load", r"weights_only\s*=\s*False", r"sys\.path\b", r"basicConfig", r"allow_pickle\s*=\s*True"],
)
def test_nothing_unsafe_or_global_is_in_the_code(forbidden: str) -> None:
    assert [path for path in SOURCES if re.search(forbidden, path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("name", ["utils", "helpers", "common"])
def test_no_module_is_named_after_nothing(name: str) -> None:
    assert [path for path in SOURCES if name in path.parts or path.stem == name] == []
