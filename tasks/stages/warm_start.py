"""The warm-start stage: decides once for a training graph from which earlier model a training starts."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.errors import InputError
from data.project import project_root
from evaluation.evaluated_model import evaluated_file
from registry.backend.location import resolve_uri, without_credentials
from registry.bundle.manifest import MANIFEST, WEIGHTS, read_manifest, verify_files
from tasks.cache.ref import Ref
from tasks.cache.result_store import write_json
from tasks.cache.stage import Stage
from tasks.run import Run

logger = logging.getLogger(__name__)

CHAMPION = "champion"
BUNDLE = "bundle"
KEY = "warm_start"


def _take(folder: Path, config: Mapping[str, Any], training_graph: Path) -> Mapping[str, Any]:
    from trainers.warm_start.transfer import FILES

    with _earlier(config) as (bundle, source):
        if bundle is None:
            write_json(folder / "warm_start.json", {"from": None})
            logger.info("There is no champion of '%s' yet, so the training starts from random weights.", config["name"])
            return {"from": "random weights"}
        manifest = read_manifest(bundle)
        evaluated = evaluated_file(WEIGHTS, manifest.files)
        names = [*FILES, "seen.parquet", *([evaluated] if evaluated else ())]
        verify_files(bundle, manifest, names)
        (folder / BUNDLE).mkdir()
        for name in (*names, MANIFEST):
            shutil.copyfile(bundle / name, folder / BUNDLE / name)
    write_json(folder / "warm_start.json", {"from": source, "digest": manifest.digest})
    return {"from": source}


@contextmanager
def _earlier(config: Mapping[str, Any]) -> Iterator[tuple[Path | None, str]]:
    """Give the bundle that a config names, and its name for people; None if there is no champion yet."""
    from registry.backend.client import RegistryClient

    if "folder" in config:
        yield Path(config["folder"]), config["folder"]
        return
    client = RegistryClient(create=True)
    if config["start"] == CHAMPION and CHAMPION not in client.aliases(config["name"]):
        yield None, ""
        return
    found = client.get(config["name"], config["start"])
    with client.bundles.folder(found) as bundle:
        yield bundle, f"version {found.version}"


WARM_START = Stage("warm-start", 1, _take, code=("registry.backend.client", "trainers.warm_start.transfer"))


def find_warm_start(run: Run, training_graph: Ref) -> Ref | None:
    """Return the earlier model that ``training.warm_start`` names; None if it names none.

    ``champion`` is the champion of the moment in which this training graph is seen first: the same command, given
    again, starts from the same model and finds its results, although its own model may be champion by then. If there is
    no champion yet, the training starts from random weights.

    The folder holds ``warm_start.json`` and, if there is an earlier model, the files of its bundle that a training
    needs.

    Raises:
        InputError: there is no such version or folder, or the bundle is damaged.
    """
    start = run.config.training.get(KEY)
    if start is None:
        return None
    if not isinstance(start, str):
        raise InputError(
            f"training.warm_start is {start!r}; give 'champion', a version in quotes, or a bundle's folder."
        )
    return run.execute(WARM_START, _config(run.config.name, start), training_graph=training_graph)


def _config(name: str, start: str) -> dict[str, Any]:
    manifest = project_root() / Path(start).expanduser() / MANIFEST
    if manifest.is_file():
        return {"folder": str(manifest.parent), "manifest": hashlib.sha256(manifest.read_bytes()).hexdigest()}
    return {"name": name, "start": start, "uri": without_credentials(resolve_uri())}


def without_warm_start(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the training's keys that a stage's key holds: the earlier model is an input of its own."""
    return {key: value for key, value in training.items() if key != KEY}


def with_warm_start(training: Mapping[str, Any], warm_start: Path | None) -> dict[str, Any]:
    """Return the keys for the trainer, with the folder of the earlier model if there is one."""
    bundle = bundle_of(warm_start)
    return {**training, KEY: str(bundle)} if bundle else dict(training)


def bundle_of(warm_start: Path | None) -> Path | None:
    """Return the part of the stage's folder that a trainer reads; None if there is no earlier model."""
    return warm_start / BUNDLE if warm_start and (warm_start / BUNDLE).is_dir() else None


def is_warmed(model: Path) -> bool:
    """Return whether a trained model started from an earlier one; a trainer that was given one may ignore it."""
    return "warmed_from" in json.loads((model / "config.json").read_text(encoding="utf-8"))


def seen_by(warm_start: Path | None) -> list[dict[str, Any]]:
    """Return the splits that the earlier model, and those that it started from, have seen."""
    bundle = bundle_of(warm_start)
    return [] if bundle is None else list(read_manifest(bundle).facts.seen_splits)
