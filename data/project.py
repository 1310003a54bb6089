"""The folders of the project, which relative paths start from."""

from __future__ import annotations

import os
from pathlib import Path


def project_root() -> Path:
    """Return the folder that contains ``artifacts/``, and that relative paths in config files start from.

    It is ``SONGGRAPH_HOME`` if that is set, else the checkout of this file, else (for an installed wheel) the current
    folder.
    """
    if home := os.environ.get("SONGGRAPH_HOME"):
        return Path(home).expanduser().resolve()
    return checkout() or Path.cwd()


def checkout() -> Path | None:
    """Return the checkout that contains this file and ``configs/``; None for an installed wheel."""
    folder = Path(__file__).resolve().parent.parent
    return folder if (folder / "pyproject.toml").exists() else None


def artifacts_folder() -> Path:
    """Return the folder of everything that a run writes, except ``data/graph.pt``."""
    return project_root() / "artifacts"
