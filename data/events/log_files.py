"""Finds log files and their formats; the readers are in ``data.events.readers``."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from data.errors import InputError

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
COMPRESSIONS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}


class LogPaths(Protocol):
    """The settings of ingest that say where the log is."""

    @property
    def events(self) -> Sequence[str]:
        """Files, folders or globs of events."""

    @property
    def track_artists(self) -> Sequence[str]:
        """Files, folders or globs of the separate table of artists, if any."""


def find_files(config: LogPaths) -> list[Path]:
    """Return all files that a run reads, events first; globs are expanded now.

    Raises:
        InputError: nothing matches, a file is missing, or its suffix belongs to no format.
    """
    tracks = track_artist_files(config)
    return event_files(config, tracks) + tracks


def event_files(config: LogPaths, track_artists: Sequence[Path]) -> list[Path]:
    """Return the files of events: sorted, each once, without the files of the track_artists table."""
    if not config.events:
        raise InputError("events is empty; name the files of the log.")
    found = _expand(config.events, "events")
    of_tracks = {path.resolve() for path in track_artists}
    events = [path for path in found if path.resolve() not in of_tracks]
    if not events:
        given = ", ".join(f"'{pattern}'" for pattern in config.events) or "[]"
        raise InputError(f"events {given} names no file besides those of track_artists; add the log.")
    return events


def track_artist_files(config: LogPaths) -> list[Path]:
    """Return the files of the separate table of artists: sorted, each once."""
    return _expand(config.track_artists, "track_artists")


def format_of(path: Path) -> tuple[str, str | None]:
    """Return the format of a file and its compression, both from its suffixes.

    Raises:
        InputError: the suffix is unknown.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    inner = suffixes[:-1] if compression else suffixes
    found = FORMATS.get(inner[-1]) if inner else None
    if found is None or (compression and found == "parquet"):
        raise InputError(
            f"{path}: the suffix says nothing that can be read. Allowed: {', '.join(FORMATS)}; "
            "all but Parquet, which compresses inside, also with .gz or .zst added."
        )
    return found, compression


def _expand(patterns: Iterable[str], key: str) -> list[Path]:
    found = {path.resolve(): path for pattern in patterns for path in _matches(pattern, key)}
    return sorted(found.values(), key=str)


def _matches(pattern: str, key: str) -> list[Path]:
    path = Path(pattern).expanduser()
    # not Path.glob, which refuses absolute patterns
    paths = [path] if path.exists() else [Path(match) for match in glob.glob(str(path), recursive=True)]  # noqa: PTH207
    if not paths and not glob.has_magic(pattern):
        raise InputError(
            f"{key}: the file '{pattern}' does not exist; correct the path (relative ones start at {Path.cwd()})."
        )
    files = [file for path in paths for file in (_log_files_in(path) if path.is_dir() else [path])]
    if not files:
        raise InputError(
            f"{key}: no log file matches '{pattern}'; correct the path, or add files ({', '.join(FORMATS)}, "
            "plain or with .gz or .zst)."
        )
    for file in files:
        format_of(file)
    return files


def _log_files_in(folder: Path) -> list[Path]:
    """Return the log files below a folder at any depth; a README, ``_SUCCESS`` or hidden files are ignored."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name[0] not in "._" and _is_log(path)]


def _is_log(path: Path) -> bool:
    try:
        format_of(path)
    except InputError:
        return False
    return True
