"""Pruning frees space and deletes nothing that somebody would miss."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.cache.result_store import ResultStore
from tasks.prune import delete_result, main, old_checkpoints, old_results


def publish(store: ResultStore, key: str, age: int, run: str = "songgraph") -> Path:
    with store.locked("split", key), store.scratch("split", key) as scratch:
        (scratch / "result.txt").write_text(key)
        folder = store.publish(scratch, "split", key, run, {"key_parts": {}}).value
    os.utime(folder, (1_000_000 - age, 1_000_000 - age))
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SONGGRAPH_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def store(home: Path) -> ResultStore:
    return ResultStore(home / "artifacts" / "store")


def test_the_newest_results_and_the_last_of_every_model_stay(store: ResultStore) -> None:
    publish(store, "other-model", age=9, run="other")
    folders = [publish(store, f"night-{age}", age) for age in (5, 4, 3, 2, 1)]
    assert old_results(store, keep=2) == [folders[2], folders[1], folders[0]]


def test_pruning_deletes_them_and_the_rest_is_still_found(
    store: ResultStore, capsys: pytest.CaptureFixture[str]
) -> None:
    for age in (3, 2, 1):
        publish(store, f"night-{age}", age)
    main(keep=1, dry_run=True)
    assert store.look_up("split", "night-3")[0] is not None
    main(keep=1)
    assert store.look_up("split", "night-1")[0] is not None
    assert store.look_up("split", "night-3") == (None, "")
    said = capsys.readouterr().out
    assert "Would delete 2 results of stages and 0 checkpoints" in said
    assert "Deleted 2 results of stages and 0 checkpoints" in said


HOLD = """
import sys
from filelock import FileLock

with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_result_that_is_being_computed_is_left_alone(store: ResultStore) -> None:
    folder = publish(store, "busy", age=1)
    command = [sys.executable, "-c", HOLD, str(store.lock_file("split", "busy"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert not delete_result(store, folder)
        assert folder.exists()
        other.communicate()
    assert delete_result(store, folder)


def test_unfinished_training_is_never_old(home: Path) -> None:
    folder = home / "artifacts" / "training" / "songgraph"
    folder.mkdir(parents=True)
    for name in ("finished-a.pt", "finished-b.pt", "checkpoint-c.pt"):
        (folder / name).write_text(name)
    os.utime(folder / "finished-a.pt", (1, 1))
    assert old_checkpoints(folder.parent, keep=1) == [folder / "finished-a.pt"]
