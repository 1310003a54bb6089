"""What one stage hands to the next: a path and a digest, never a graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Ref:
    """A published folder and the SHA-256 of what is in it, with word of how it came to be."""

    path: str
    sha256: str
    cached: bool = False
    why: str = ""

    @property
    def value(self) -> Path:
        """What the work of a stage is given: the folder."""
        return Path(self.path)

    def told(self, *, cached: bool, why: str) -> Self:
        return replace(self, cached=cached, why=why)


@dataclass(frozen=True)
class Files:
    """Files of the user's, with one SHA-256 over the contents of them all: an input that no stage made."""

    paths: tuple[str, ...]
    sha256: str

    @property
    def value(self) -> list[Path]:
        """What the work of a stage is given: the paths."""
        return [Path(path) for path in self.paths]
