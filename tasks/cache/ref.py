"""References that one stage hands to the next: a path and a digest, never a graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ref:
    """A published folder with the SHA-256 of what is in it, the stage that made it, and why that ran or did not."""

    path: str
    sha256: str
    stage: str = ""
    cached: bool = False
    why: str = ""

    @property
    def value(self) -> Path:
        """The folder, which the work of a stage is given."""
        return Path(self.path)


@dataclass(frozen=True)
class Files:
    """Files that the user brings, with one SHA-256 over the contents of all: an input that no stage made."""

    paths: tuple[str, ...]
    sha256: str

    @property
    def value(self) -> list[Path]:
        """The paths, which the work of a stage is given."""
        return [Path(path) for path in self.paths]
