"""Digests of log files, remembered by path, size and time of change: an unchanged log is not read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from data.digest import sha256_of_file, sha256_of_json
from data.errors import InputError
from tasks.cache.ref import Files
from tasks.cache.result_store import write_json


def digest_files(paths: Sequence[Path], memory: Path) -> Files:
    """Return one digest over the contents and suffixes of all files; their order and names do not count.

    Args:
        memory: JSON file that remembers digests; made if it is absent.

    Raises:
        InputError: a file is gone or may not be read.
    """
    memory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{memory}.lock"):
        known = _read(memory)
        found = {str(path.resolve()): _remembered(path, known) for path in paths}
        if any(known.get(path) != entry for path, entry in found.items()):
            write_json(memory, known | found)
    suffixes = {str(path.resolve()): "".join(path.suffixes[-2:]) for path in paths}
    contents = sorted([entry["sha256"], suffixes[path]] for path, entry in found.items())
    return Files(tuple(str(path) for path in paths), sha256_of_json(contents))


def _remembered(path: Path, known: dict[str, dict]) -> dict:
    try:
        stat = path.stat()
        entry = known.get(str(path.resolve()), {})
        if (entry.get("size"), entry.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns):
            return entry
        return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256_of_file(path)}
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); correct its path or its rights.") from None


def _read(memory: Path) -> dict[str, dict]:
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
