"""Results of stages on disk, by key: published in one move, verified before use, one writer a key."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from data.digest import sha256_of_file, sha256_of_json
from tasks.cache.key import KeyParts
from tasks.cache.ref import Ref

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ResultStore:
    """``root/<stage>/<key>/`` holds a result and its manifest; ``root/<stage>/tmp`` what is being written.

    Publishing is one ``os.replace``, so that a reader never sees half a result. The lock is the operating system's:
    a killed run leaves none behind.
    """

    root: Path

    def folder(self, stage: str, key: str) -> Path:
        """Return where a result is, or would be."""
        return self.root / stage / key

    def look_up(self, stage: str, key: str) -> tuple[Ref | None, str]:
        """Return the verified result, or None with the reason: never stored (an empty text), gone, or damaged."""
        folder = self.folder(stage, key)
        if not folder.exists():
            gone = key in self.last_keys(stage)
            return None, "the stored result is gone" if gone else ""
        try:
            manifest = read_stage_manifest(folder)
            damage = _damage(folder, manifest)
        except (OSError, ValueError, KeyError, TypeError):
            return None, f"the stored result is damaged: {MANIFEST} cannot be read"
        if damage:
            return None, f"the stored result is damaged: {damage}"
        return Ref(str(folder), manifest["sha256"], stage), ""

    def lock_file(self, stage: str, key: str) -> Path:
        """Return the file that a run locks while it works on a key."""
        return self.root / stage / "locks" / key

    @contextmanager
    def locked(self, stage: str, key: str) -> Iterator[None]:
        """Wait until no other process computes this key."""
        lock = self.lock_file(stage, key)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            yield

    @contextmanager
    def scratch(self, stage: str, key: str) -> Iterator[Path]:
        """Give an empty folder for the result, which is deleted unless it is published. Hold the key's lock."""
        self._sweep(stage, but=key)
        folder = self.root / stage / "tmp" / key
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, scratch: Path, stage: str, key: str, run: str, manifest: dict[str, Any]) -> Ref:
        """Move a finished folder to its place, and remember it."""
        files = {str(path.relative_to(scratch)): sha256_of_file(path) for path in _files(scratch)}
        manifest = {"stage": stage, "key": key, "sha256": sha256_of_json(files), **manifest, "files": files}
        write_json(scratch / MANIFEST, manifest)
        target = self.folder(stage, key)
        if target.exists():
            self.discard(target)
        scratch.replace(target)
        self.remember(stage, key, run, manifest["key_parts"])
        return Ref(str(target), manifest["sha256"], stage)

    def remember(self, stage: str, key: str, run: str, parts: KeyParts) -> None:
        """Note which result a run of this name used last, so that the next run can say what changed."""
        if _read_json(self._last_file(stage, run)).get("key") != key:
            write_json(self._last_file(stage, run), {"key": key, "key_parts": parts})

    def last_keys(self, stage: str) -> set[str]:
        """Return the keys of the stage's results that were used last, one for each name of a run."""
        return {last.get("key", "") for last in map(_read_json, (self.root / stage).glob("last-*.json"))}

    def last_parts(self, stage: str, run: str) -> KeyParts:
        """Return the key parts of the result that a run of this name used last; empty if there is none."""
        return _read_json(self._last_file(stage, run)).get("key_parts", {})

    def _last_file(self, stage: str, run: str) -> Path:
        return self.root / stage / f"last-{run}.json"

    def discard(self, folder: Path) -> None:
        """Take a result out of its place in one move, then delete it."""
        (folder.parent / "tmp").mkdir(exist_ok=True)
        trash = folder.parent / "tmp" / f"{folder.name}.discarded"
        shutil.rmtree(trash, ignore_errors=True)
        folder.replace(trash)
        shutil.rmtree(trash, ignore_errors=True)

    def _sweep(self, stage: str, but: str) -> None:
        """Delete what killed runs left half-written: keys whose lock nobody holds."""
        for leftover in (self.root / stage / "tmp").glob("*"):
            key = leftover.name.removesuffix(".discarded")
            if key == but:
                continue
            try:
                with FileLock(self.lock_file(stage, key), timeout=0):
                    shutil.rmtree(leftover, ignore_errors=True)
            except Timeout:
                continue


def read_stage_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a stage's result: its key, config, inputs, counts, and digests of its files."""
    return json.loads((folder / MANIFEST).read_text())


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old text or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(value, indent=2, default=str) + "\n")
    partial.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)


def _damage(folder: Path, manifest: dict[str, Any]) -> str:
    """Return what is wrong with the first file that differs from the manifest; an empty text if none does."""
    for name, sha256 in manifest["files"].items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if sha256_of_file(folder / name) != sha256:
            return f"{name} does not match its digest"
    return "" if sha256_of_json(manifest["files"]) == manifest["sha256"] else f"{MANIFEST} does not match itself"
