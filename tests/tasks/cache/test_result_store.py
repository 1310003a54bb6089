"""What a user would miss of the store: nothing half-written is used, nothing good is lost, one run computes a key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.cache.result_store import MANIFEST, ResultStore, read_stage_manifest

PARTS = {"config k": 10}


def publish(store: ResultStore, key: str = "abc", text: str = "hello", run: str = "songgraph") -> Path:
    with store.locked("split", key), store.scratch("split", key) as scratch:
        (scratch / "result.txt").write_text(text)
        return store.publish(scratch, "split", key, run, {"key_parts": PARTS}).value


def test_a_published_result_is_found_with_the_digest_of_its_content(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    first, second = publish(store, "abc"), publish(store, "def")
    ref, problem = store.look_up("split", "abc")
    assert ref is not None
    assert problem == ""
    assert ref.value == first
    assert ref.sha256 == read_stage_manifest(second)["sha256"]


def test_what_was_never_stored_is_a_miss_without_a_problem(tmp_path: Path) -> None:
    assert ResultStore(tmp_path).look_up("split", "abc") == (None, "")


def test_a_deleted_result_is_a_miss_that_says_so(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    folder = publish(store)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert store.look_up("split", "abc") == (None, "the stored result is gone")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "result.txt").write_text("jello"), "result.txt does not match its digest"),
        (lambda folder: (folder / "result.txt").unlink(), "result.txt is missing"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "manifest.json cannot be read"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "manifest.json cannot be read"),
        (lambda folder: (folder / MANIFEST).unlink(), "manifest.json cannot be read"),
    ],
)
def test_a_damaged_result_is_a_miss_that_names_the_file(tmp_path: Path, damage, told: str) -> None:
    store = ResultStore(tmp_path)
    damage(publish(store))
    ref, problem = store.look_up("split", "abc")
    assert ref is None
    assert told in problem


def test_a_damaged_result_is_replaced(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    (publish(store) / "result.txt").write_text("damage")
    publish(store)
    assert store.look_up("split", "abc")[0] is not None


def test_work_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)

    def fail_half_way() -> None:
        with store.locked("split", "abc"), store.scratch("split", "abc") as scratch:
            (scratch / "half.txt").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert store.look_up("split", "abc") == (None, "")
    assert list((tmp_path / "split" / "tmp").iterdir()) == []


def test_what_a_killed_run_left_is_swept_away_by_the_next_one(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    leftover = tmp_path / "split" / "tmp" / "killed"
    leftover.mkdir(parents=True)
    (leftover / "half.txt").write_text("half")
    publish(store)
    assert not leftover.exists()


def test_a_result_that_is_used_again_is_the_last_one(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    publish(store, "abc")
    store.remember("split", "def", "songgraph", {"config k": 20})
    assert store.last_parts("split", "songgraph") == {"config k": 20}
    assert store.last_keys("split") == {"def"}


def test_the_last_result_is_remembered_for_each_name(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    publish(store, "abc", run="one")
    assert store.last_parts("split", "one") == PARTS
    assert store.last_parts("split", "two") == {}


COMPUTE_ONCE = """
import sys, time
from pathlib import Path
from tasks.cache.result_store import ResultStore

store = ResultStore(Path(sys.argv[1]))
with store.locked("split", "abc"):
    if store.look_up("split", "abc")[0]:
        print("found")
        raise SystemExit
    with store.scratch("split", "abc") as scratch:
        time.sleep(0.3)
        (scratch / "result.txt").write_text("x")
        store.publish(scratch, "split", "abc", "songgraph", {"key_parts": {}})
    print("computed")
"""


def test_two_processes_that_want_one_key_compute_it_once(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", COMPUTE_ONCE, str(tmp_path)]
    both = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(process.communicate(timeout=60)[0].strip() for process in both) == ["computed", "found"]
