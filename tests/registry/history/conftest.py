"""A registry with versions whose decisions are given, so that these tests are about what happens to decisions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import registry.register
from registry.backend.client import RegistryClient
from registry.bundle.manifest import Manifest, read_manifest
from registry.gate.gate_config import Decision
from registry.register import Registered, register

Decided = Callable[..., Registered]


def variant(pristine: Path, folder: Path, number: int, in_sample: bool = False) -> Path:
    """The same files as another bundle: only the digest of its log differs."""
    shutil.copytree(pristine, folder)
    facts = read_manifest(folder).facts
    changed = facts.model_copy(update={"lineage": {"log": str(number)}, "in_sample": in_sample})
    Manifest.of(folder, changed).write(folder)
    return folder


@pytest.fixture
def make_variant() -> Callable[..., Path]:
    """Write the same files as another bundle."""
    return variant


@pytest.fixture
def decided(pristine: Path, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> Decided:
    """Register the bundle of a number, with the gate's outcome given."""

    def make(number: int, outcome: str = "promote", in_sample: bool = False) -> Registered:
        decision = Decision.model_validate(
            {"outcome": outcome, "reason": f"It was to {outcome}.", "metric": "recall@5", "users": 40}
        )
        monkeypatch.setattr(
            registry.register,
            "decide",
            lambda _, champion=None, *__, **___: decision.model_copy(update={"champion": champion}),
        )
        folder = tmp_path / f"bundle{number}"
        if not folder.exists():
            variant(pristine, folder, number, in_sample)
        return register(folder, "music", uri)

    return make


@pytest.fixture
def client(uri: str) -> RegistryClient:
    """The registry that they are in."""
    return RegistryClient(uri)
