"""The ingest stage: events become one row a user, song and day; bad rows are rejected and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.digest import sha256_of_json
from data.errors import InputError
from data.events.ingest_config import IngestConfig
from data.events.log_files import find_files, track_artist_files
from data.project import artifacts_folder
from tasks.cache.file_digests import digest_files
from tasks.cache.ref import Files, Ref
from tasks.cache.stage import Stage
from tasks.run import Run
from tasks.stages.synthesize import synthesize

NOT_IN_KEY = {"events", "track_artists", "memory_limit"}
"""Settings that say where to find the input, whose content counts instead, or how much memory to use."""


@dataclass(frozen=True)
class Log:
    """The log of a run: its ingest config, with paths, and the digest of what the paths hold."""

    config: IngestConfig
    files: Files
    synthetic: bool


def find_log(run: Run) -> Log:
    """Return the files that the config's globs match now, or the synthetic log if the config names none."""
    config = run.config.ingest
    if run.config.uses_synthetic_log:
        made = synthesize(run)
        config = config.model_copy(update={"events": (str(made.value / "*.parquet"),)})
        return Log(config, Files(tuple(map(str, find_files(config))), made.sha256), synthetic=True)
    return Log(config, _digested(run.config.log_files(), config), synthetic=False)


def _digested(files: Sequence[Path], config: IngestConfig) -> Files:
    """Return the files with a digest of what they hold and of which ones are the table of artists."""
    memory = artifacts_folder() / "file_digests.json"
    found = digest_files(files, memory)
    tracks = track_artist_files(config)
    if not tracks:
        return found
    return Files(found.paths, sha256_of_json([found.sha256, digest_files(tracks, memory).sha256]))


def _ingest(folder: Path, config: Mapping[str, Any], log: list[Path], given: Log) -> Mapping[str, Any]:
    from data.events.ingest import ingest as ingest_log

    counts = ingest_log(given.config, folder, log)
    if not given.synthetic and _digested(log, given.config).sha256 != given.files.sha256:
        raise InputError(
            "The log changed while it was read, so nothing was stored; run again once its files are complete."
        )
    return counts


INGEST = Stage("ingest", 1, _ingest, code=("data.events.ingest",))


def ingest(run: Run, log: Log) -> Ref:
    """Read, check, filter and aggregate the log."""
    return run.execute(INGEST.bind(given=log), log.config.model_dump(mode="json", exclude=NOT_IN_KEY), log=log.files)
