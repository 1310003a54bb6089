"""A project root of its own for each test of stages."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project root within a test: what stages compute lies there."""
    monkeypatch.setenv("SONGGRAPH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
