"""A registered version, as MLflow's model registry lists it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from data.errors import InputError
from registry.bundle.manifest import Manifest

DIGEST_TAG = "bundle_digest"


@dataclass(frozen=True)
class Version:
    """A registered version: its number, the run that holds its bundle, and its tags."""

    name: str
    version: int
    run_id: str
    source: str
    created_ms: int
    tags: dict[str, str] = field(repr=False)

    @classmethod
    def of(cls, entity: Any) -> Self:
        """Read one from MLflow's ``ModelVersion``."""
        return cls(
            name=entity.name,
            version=int(entity.version),
            run_id=entity.run_id or "",
            source=entity.source,
            created_ms=int(entity.creation_timestamp),
            tags=dict(entity.tags),
        )

    def check(self, manifest: Manifest) -> None:
        """Refuse a sound bundle that is not the one that was registered as this version."""
        if manifest.digest != self.tags.get(DIGEST_TAG):
            raise InputError(
                f"The bundle of version {self.version} of '{self.name}' is another version's: its digest is not the "
                "one that was registered. Restore the folder, or load another version."
            )
