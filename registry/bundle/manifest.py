"""The manifest of a bundle: its files, its origin, and one digest over both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError

from data.config import Config
from data.digest import sha256_of_file
from data.errors import InputError
from evaluation.evaluated_model import OLD_PREFIX, PREFIX, evaluated_file

MANIFEST = "manifest.json"
EMBEDDINGS, LOCAL = "embeddings.safetensors", "local.safetensors"
HEADS = "heads.safetensors"
RESULTS = "results.json"
WEIGHTS = "model.safetensors"
EVALUATED_EMBEDDINGS, EVALUATED_LOCAL, EVALUATED_WEIGHTS = (PREFIX + name for name in (EMBEDDINGS, LOCAL, WEIGHTS))
BUNDLE_FILES = frozenset(
    {
        WEIGHTS,
        EMBEDDINGS,
        "config.json",
        "history.json",
        "users.parquet",
        "songs.parquet",
        "artists.parquet",
        "song_artists.parquet",
        "seen.parquet",
        "lists.parquet",
        "metrics.json",
        "per_user.parquet",
    }
)
"""Files that every bundle has beside its manifest."""

EVALUATED_FILES = frozenset(prefix + name for prefix in (PREFIX, OLD_PREFIX) for name in (EMBEDDINGS, LOCAL, WEIGHTS))
"""Files of the evaluated model, if another one was published; by the names of today and of earlier releases."""

OPTIONAL_FILES = EVALUATED_FILES | {"profile.json", "audit.json", "seeds.json", RESULTS, LOCAL, HEADS}
"""Files that a bundle may have: also the log's profile, the audit, the spread between seeds, the trainer's own results,
a local channel, and heads that predict more than the ranking."""

ADDED_FACTS: dict[str, Any] = {"refit": False}
"""Facts that bundles of earlier releases lack, with the value that means the same; that value is not in the digest."""


class ScoreFiles(NamedTuple):
    """The files that a model's scores are computed from."""

    vectors: str = EMBEDDINGS
    local: str | None = None
    """File of its local channel; None for a model that scores by the dot product of the vectors alone."""


class ModelFacts(Config):
    """The origin of a bundle's model, and what its weights have seen."""

    source: Literal["log", "synthetic"]
    """"log" if people listened, "synthetic" for a made-up log."""
    trainer: str
    """The trainer's name, or its package.module:Class."""
    split_digest: str
    """Digest of the split of the evaluation."""
    in_sample: bool
    """True if the training has seen everything that the metrics count."""
    seen_splits: tuple[dict[str, Any], ...]
    """Salt and ratios, or cut-off, of the training's split; then those of each model whose weights it started from."""
    lineage: dict[str, str] = Field(default_factory=dict)
    """Digests of what the bundle was made from, by name, from log to model."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of the libraries that computed it."""
    refit: bool = False
    """True if the published weights were trained once more on all listens; the metrics are the evaluated model's."""


class Manifest(Config):
    """A bundle's facts, its files' digests, and the digest of both, which identifies the bundle."""

    format: Literal[1] = 1
    """A higher number if the files of a bundle change their meaning."""
    facts: ModelFacts
    """The origin of the model."""
    files: dict[str, str]
    """File name to SHA-256."""
    digest: str
    """SHA-256 of the canonical JSON of the other fields."""

    @classmethod
    def of(cls, folder: Path, facts: ModelFacts) -> Self:
        """Make the manifest of the files that are in a folder now."""
        optional = {name for name in OPTIONAL_FILES if (folder / name).is_file()}
        files = {name: sha256_of_file(folder / name) for name in sorted(BUNDLE_FILES | optional)}
        unsigned = cls(facts=facts, files=files, digest="")
        return unsigned.model_copy(update={"digest": unsigned.expected_digest()})

    @property
    def published(self) -> ScoreFiles:
        """Return the files that recommendations are computed from."""
        return ScoreFiles(EMBEDDINGS, LOCAL if LOCAL in self.files else None)

    @property
    def evaluated(self) -> ScoreFiles:
        """Return the files that the metrics were computed from: the published ones, unless the model was refitted."""
        vectors = evaluated_file(EMBEDDINGS, self.files)
        return ScoreFiles(vectors, evaluated_file(LOCAL, self.files)) if vectors else self.published

    @property
    def has_evaluated_model(self) -> bool:
        """Return if the bundle holds an evaluated model beside the published one."""
        return evaluated_file(EMBEDDINGS, self.files) is not None

    def expected_digest(self) -> str:
        """Compute the digest of the other fields."""
        content: dict[str, Any] = self.model_dump(mode="json", exclude={"digest"})
        absent = [name for name, default in ADDED_FACTS.items() if content["facts"][name] == default]
        content["facts"] = {name: value for name, value in content["facts"].items() if name not in absent}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``; it is the last file of a bundle."""
        (folder / MANIFEST).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def verify_bundle(folder: Path) -> Manifest:
    """Read a bundle's manifest and hash every file against it.

    Raises:
        InputError: the folder is no bundle, or a file is missing, extra, damaged or of another bundle; it is named.
    """
    manifest = read_manifest(folder)
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - {MANIFEST}
    for name in sorted(set(manifest.files) | BUNDLE_FILES):
        if name not in present or name not in manifest.files:
            raise _refused(folder, f"{name} is missing")
    for name in sorted(present - (OPTIONAL_FILES & set(manifest.files)) - BUNDLE_FILES):
        raise _refused(folder, f"{name} does not belong to it")
    verify_files(folder, manifest, manifest.files)
    return manifest


def verify_files(folder: Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Hash some files of a bundle, before only these are read."""
    for name in names:
        path = folder / name
        if not path.is_file():
            raise _refused(folder, f"{name} is missing")
        if sha256_of_file(path) != manifest.files[name]:
            raise _refused(folder, f"{name} is damaged or belongs to another bundle")


def read_manifest(folder: Path) -> Manifest:
    """Read a bundle's manifest and check it against its own digest, without looking at the other files."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError:
        raise _refused(folder, f"{MANIFEST} is missing") from None
    except ValidationError:
        raise _refused(folder, f"{MANIFEST} is damaged") from None
    if manifest.digest != manifest.expected_digest():
        raise _refused(folder, f"{MANIFEST} is damaged: its digest does not match its content")
    return manifest


def _refused(folder: Path, problem: str) -> InputError:
    return InputError(f"The bundle {folder} is refused: {problem}. Register the model again, or restore the file.")
