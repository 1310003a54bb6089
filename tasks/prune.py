"""Free disk space: ``python -m tasks.prune --keep 7`` deletes old results of stages and old finished checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from filelock import FileLock, Timeout
from rich.console import Console

from data.project import artifacts_folder
from tasks.cache.result_store import MANIFEST, ResultStore

MEGABYTE = 1_000_000

KeepOption = Annotated[
    int,
    typer.Option("--keep", metavar="N", min=1, help="How many to keep of each stage, and checkpoints of each model."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only print what would be deleted.")]


def old_results(store: ResultStore, keep: int) -> list[Path]:
    """Return results that are neither the last of a run's name nor among the ``keep`` newest of their stage."""
    old: list[Path] = []
    for stage in _folders(store.root):
        results = [folder for folder in _folders(stage) if (folder / MANIFEST).exists()]
        last = store.last_keys(stage.name)
        old += [folder for folder in _all_but_newest(results, keep) if folder.name not in last]
    return old


def old_checkpoints(folder: Path, keep: int) -> list[Path]:
    """Return finished checkpoints beyond the ``keep`` newest of each model; an unfinished one is never old."""
    return [path for model in _folders(folder) for path in _all_but_newest(model.glob("finished-*.pt"), keep)]


def delete_result(store: ResultStore, folder: Path) -> bool:
    """Delete a stage's result; return False if a run works on the same key now."""
    try:
        with FileLock(store.lock_file(folder.parent.name, folder.name), timeout=0):
            store.discard(folder)
    except Timeout:
        return False
    return True


def main(keep: KeepOption = 7, dry_run: DryRunOption = False) -> None:
    """Delete old results of stages and old finished checkpoints.

    Registered models, unfinished training and the last results of every model stay. A run computes again
    what it needs. Start no run meanwhile.
    """
    store = ResultStore(artifacts_folder() / "store")
    results, checkpoints = old_results(store, keep), old_checkpoints(artifacts_folder() / "training", keep)
    size = sum(file.stat().st_size for path in (*results, *checkpoints) for file in _files(path))
    if not dry_run:
        results = [folder for folder in results if delete_result(store, folder)]
        for path in checkpoints:
            path.unlink(missing_ok=True)
    verb = "Would delete" if dry_run else "Deleted"
    counts = f"{len(results)} results of stages and {len(checkpoints)} checkpoints"
    Console().print(f"{verb} {counts}, {size / MEGABYTE:.1f} MB.", highlight=False)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_dir())


def _all_but_newest(paths: Iterable[Path], keep: int) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)[keep:]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


if __name__ == "__main__":
    typer.run(main)
