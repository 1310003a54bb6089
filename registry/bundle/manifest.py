"""The manifest of a bundle: what is in it, where it comes from, and one digest over both."""

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

MANIFEST = "manifest.json"
EMBEDDINGS, LOCAL = "embeddings.safetensors", "local.safetensors"
HEADS = "heads.safetensors"
RESULTS = "results.json"
WEIGHTS = "model.safetensors"
TWIN, TWIN_LOCAL, TWIN_WEIGHTS = f"twin_{EMBEDDINGS}", f"twin_{LOCAL}", f"twin_{WEIGHTS}"
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
"""What every bundle has beside its manifest."""

OPTIONAL_FILES = frozenset(
    {"profile.json", "audit.json", "seeds.json", RESULTS, LOCAL, HEADS, TWIN, TWIN_LOCAL, TWIN_WEIGHTS}
)
"""What a bundle may have beyond that: the log's profile, the audit, the spread between seeds, what the trainer itself
measured, a local channel, heads that predict more than the ranking, and a refit's twin."""

ADDED_FACTS: dict[str, Any] = {"refit": False}
"""Facts that bundles of earlier releases lack, with the value that stands for their absence; it is not digested."""


class ScoreFiles(NamedTuple):
    """The files that a model's scores are computed from."""

    vectors: str = EMBEDDINGS
    local: str | None = None
    """Of its local channel; None where it has none, so that its score is the dot product of the vectors."""


class Facts(Config):
    """Where a bundle comes from, and what its weights have seen."""

    source: Literal["log", "synthetic"]
    """Whether people listened, or the log was made up."""
    trainer: str
    """The trainer's name, or its package.module:Class."""
    split_digest: str
    """Digest of the split on which the metrics stand."""
    in_sample: bool
    """True where training has seen everything that the metrics count."""
    seen_splits: tuple[dict[str, Any], ...]
    """Salt and ratios, or cut-off, of the split of the training; then of each model whose weights it started from."""
    lineage: dict[str, str] = Field(default_factory=dict)
    """Digests of what the bundle was made from, by name, from log to model."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of the libraries that computed it."""
    refit: bool = False
    """True where the weights were trained once more on all listens; the metrics are those of a twin, which was not."""


class Manifest(Config):
    """A bundle's facts, its files' digests, and the digest of both, by which the bundle is known."""

    format: Literal[1] = 1
    """Raised when the files of a bundle change their meaning."""
    facts: Facts
    """Where the bundle comes from."""
    files: dict[str, str]
    """File name to SHA-256."""
    digest: str
    """SHA-256 of the canonical JSON of the other fields."""

    @classmethod
    def of(cls, folder: Path, facts: Facts) -> Self:
        """The manifest of the files that lie in a folder now."""
        optional = {name for name in OPTIONAL_FILES if (folder / name).is_file()}
        files = {name: sha256_of_file(folder / name) for name in sorted(BUNDLE_FILES | optional)}
        unsigned = cls(facts=facts, files=files, digest="")
        return unsigned.model_copy(update={"digest": unsigned.expected_digest()})

    @property
    def published(self) -> ScoreFiles:
        """The files that recommendations come from."""
        return self._score_files(EMBEDDINGS, LOCAL)

    @property
    def measured(self) -> ScoreFiles:
        """The files that stand behind the metrics: the twin's, where the published model has seen everything."""
        return self._score_files(TWIN, TWIN_LOCAL) if TWIN in self.files else self.published

    def _score_files(self, vectors: str, local: str) -> ScoreFiles:
        return ScoreFiles(vectors, local if local in self.files else None)

    def expected_digest(self) -> str:
        """The digest that the other fields should have."""
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
    _check_names(folder, manifest)
    verify_files(folder, manifest, manifest.files)
    return manifest


def verify_files(folder: Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Hash some files of a bundle, for those who read only these."""
    for name in names:
        path = folder / name
        if not path.is_file():
            raise _refused(folder, f"{name} is missing")
        if sha256_of_file(path) != manifest.files[name]:
            raise _refused(folder, f"{name} is damaged or belongs to another bundle")


def _check_names(folder: Path, manifest: Manifest) -> None:
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - {MANIFEST}
    for name in sorted(set(manifest.files) | BUNDLE_FILES):
        if name not in present or name not in manifest.files:
            raise _refused(folder, f"{name} is missing")
    for name in sorted(present - (OPTIONAL_FILES & set(manifest.files)) - BUNDLE_FILES):
        raise _refused(folder, f"{name} does not belong to it")


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
