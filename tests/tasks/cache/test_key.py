"""A stage's key changes with all that can change its result, and with nothing else."""

from __future__ import annotations

import importlib
import json
import sys
from datetime import date
from pathlib import Path

import pytest

from data.code.digests import code_digests
from tasks.cache.key import in_short, key_of, key_parts, what_changed


def parts(**changed):
    given = {"inputs": {"graph": "aa"}, "config": {"k": 10, "table": {"lr": 0.1}}, "code": ("data.config",)} | changed
    return key_parts("split", 1, **given)


def test_equal_parts_give_equal_keys_whatever_their_order() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"inputs": {"graph": "bb"}}, ["input graph"]),
        ({"config": {"k": 20, "table": {"lr": 0.1}}}, ["config k: 10 → 20"]),
        ({"config": {"k": 10, "table": {"lr": 0.2}}}, ["config table.lr: 0.1 → 0.2"]),
        ({"config": {"k": 10}}, ["config table.lr: 0.1 → not set"]),
    ],
)
def test_a_change_gives_another_key_and_is_named(changed, told) -> None:
    assert key_of(parts()) != key_of(parts(**changed))
    assert what_changed(parts(), parts(**changed)) == told


def test_parts_that_were_stored_and_read_back_have_not_changed() -> None:
    now = parts(config={"ks": (20, 40), "since": date(2025, 1, 1)})
    assert what_changed(json.loads(json.dumps(now)), now) == []


def test_the_code_that_is_reached_counts_with_what_it_imports() -> None:
    assert set(code_digests(["data.config"])) == {"data.config", "data.errors"}


def test_a_lazily_named_class_counts_when_it_is_chosen() -> None:
    assert "models.lightgcn" not in code_digests(["trainers.factory"])
    assert "models.base" in code_digests(["models.lightgcn"])


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module outside of the project, whose text a test can change."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str) -> dict[str, str]:
        (tmp_path / "their_trainer.py").write_text(text)
        importlib.invalidate_caches()
        return code_digests(["their_trainer"])

    return write


def test_a_comment_or_a_docstring_changes_nothing_and_a_line_does(outside) -> None:
    before = outside("def f():\n    return 1\n")
    assert outside('"""Why."""\n\n\ndef f():  # how\n    """What."""\n    return 1\n') == before
    assert outside("def f():\n    return 2\n") != before


def test_a_class_from_outside_counts_with_what_it_takes_from_the_project(outside) -> None:
    digests = outside("from data.errors import InputError\n")
    assert {"their_trainer", "data.errors"} <= set(digests)
    assert "their_trainer" not in sys.modules


@pytest.mark.parametrize("statement", ["from trainers import AdvancedTrainer", "import trainers"])
def test_a_class_taken_from_a_package_root_counts_with_the_module_that_defines_it(outside, statement: str) -> None:
    assert {"trainers.advanced", "data.training_graph"} <= set(outside(f"{statement}\n"))


def test_a_class_of_another_name_of_the_same_root_does_not_count(outside) -> None:
    assert "trainers.advanced" not in outside("from trainers import BaseTrainer\n")


def test_a_module_from_outside_counts_with_those_beside_it(outside, tmp_path: Path) -> None:
    (tmp_path / "their_losses.py").write_text("SCALE = 1\n")
    before = outside("import json\nimport torch\nimport their_losses\n")
    assert set(before) == {"their_trainer", "their_losses"}
    (tmp_path / "their_losses.py").write_text("SCALE = 2\n")
    assert outside("import json\nimport torch\nimport their_losses\n")["their_losses"] != before["their_losses"]


def test_a_package_from_outside_counts_with_what_it_imports_of_itself(outside, tmp_path: Path) -> None:
    package = tmp_path / "their_package"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("from .trainer import Trainer\n")
    (package / "trainer.py").write_text("from trainers.base import BaseTrainer\nfrom .deep import losses\n")
    (package / "unused.py").write_text("")
    (package / "deep" / "__init__.py").write_text("")
    (package / "deep" / "losses.py").write_text("from .. import trainer\n")
    outside("")
    theirs = {"their_package", "their_package.trainer", "their_package.deep", "their_package.deep.losses"}
    for entry in ("their_package", "their_package.trainer"):
        assert {name for name in code_digests([entry]) if name.startswith("their_")} == theirs
        assert "trainers.base" in code_digests([entry])


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        code_digests(["no_such_module.trainer"])


def test_many_inputs_and_modules_are_counted_and_settings_told_in_full() -> None:
    changes = ["input a", "config lr: 1 → 2", "input b", "input c", "code data.split", "code data.graph"]
    assert in_short(changes) == "config lr: 1 → 2; input a and 2 more; code data.split and 1 more"
    assert in_short(["input a", "input b"]) == "input a; input b"


def test_a_digest_is_named_and_not_printed() -> None:
    assert what_changed({"config page": "a" * 64}, {"config page": "b" * 64}) == ["config page"]
