"""The start stage: the earlier model from which a training starts, decided once for a training graph."""

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
from tasks.run_config import RunConfig

logger = logging.getLogger(__name__)

CHAMPION = "champion"
BUNDLE = "bundle"
KEY = "warm_start"


def _take(folder: Path, config: Mapping[str, Any], training_graph: Path) -> Mapping[str, Any]:
    from trainers.warm_start.transfer import FILES

    with _earlier(config) as (bundle, source):
        if bundle is None:
            write_json(folder / "start.json", {"from": None})
            logger.info("There is no champion of '%s' yet, so the training starts from random weights.", config["name"])
            return {"from": "random weights"}
        manifest = read_manifest(bundle)
        evaluated = evaluated_file(WEIGHTS, manifest.files)
        names = [*FILES, "seen.parquet", *([evaluated] if evaluated else ())]
        verify_files(bundle, manifest, names)
        (folder / BUNDLE).mkdir()
        for name in (*names, MANIFEST):
            shutil.copyfile(bundle / name, folder / BUNDLE / name)
    write_json(folder / "start.json", {"from": source, "digest": manifest.digest})
    return {"from": source}


@contextmanager
def _earlier(config: Mapping[str, Any]) -> Iterator[tuple[Path | None, str]]:
    """Give the bundle that a config names, and its name for people; no bundle if there is no champion yet."""
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


START = Stage("start", 1, _take, code=("registry.backend.client", "trainers.warm_start.transfer"))


def find_start(run: RunConfig, training_graph: Ref) -> Ref | None:
    """The earlier model that ``training.warm_start`` names; None where it names none.

    ``champion`` is the champion of the moment in which this training graph is seen first: the same command, given
    again, starts from the same model and finds its results, although its own model may be champion by then. Where
    there is no champion yet, the training starts from random weights.

    The folder holds ``start.json`` and, where there is an earlier model, the files of its bundle that a training needs.

    Raises:
        InputError: there is no such version or folder, or the bundle is damaged.
    """
    start = run.training.get(KEY)
    if start is None:
        return None
    if not isinstance(start, str):
        raise InputError(
            f"training.warm_start is {start!r}; give 'champion', a version in quotes, or a bundle's folder."
        )
    return START(run, _config(run, start), training_graph=training_graph)


def _config(run: RunConfig, start: str) -> dict[str, Any]:
    manifest = project_root() / Path(start).expanduser() / MANIFEST
    if manifest.is_file():
        return {"folder": str(manifest.parent), "manifest": hashlib.sha256(manifest.read_bytes()).hexdigest()}
    return {"name": run.name, "start": start, "uri": without_credentials(resolve_uri())}


def without_start(training: Mapping[str, Any]) -> dict[str, Any]:
    """The training's keys that a stage's key holds: the start is an input of its own."""
    return {key: value for key, value in training.items() if key != KEY}


def with_start(training: Mapping[str, Any], start: Path | None) -> dict[str, Any]:
    """The keys for the trainer, with the folder of the earlier model where there is one."""
    bundle = bundle_of(start)
    return {**training, KEY: str(bundle)} if bundle else dict(training)


def bundle_of(start: Path | None) -> Path | None:
    """Of the start stage's folder the part that a trainer reads; None where there is no earlier model."""
    return start / BUNDLE if start and (start / BUNDLE).is_dir() else None


def is_warmed(model: Path) -> bool:
    """Whether a trained model started from an earlier one; a trainer that was given one may begin anew nevertheless."""
    return "warmed_from" in json.loads((model / "config.json").read_text(encoding="utf-8"))


def seen_by(start: Path | None) -> list[dict[str, Any]]:
    """The splits that the earlier model, and those that it started from, have seen; none without one."""
    bundle = bundle_of(start)
    return [] if bundle is None else list(read_manifest(bundle).facts.seen_splits)
