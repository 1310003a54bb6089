"""Where the project is: what relative paths start from."""

from __future__ import annotations

import os
from pathlib import Path


def project_root() -> Path:
    """The folder that relative paths of config files start from, and that ``artifacts/`` is in.

    ``SONGGRAPH_HOME`` where it is set; else the checkout that this file is in; else, for an installed wheel, the
    current folder.
    """
    if home := os.environ.get("SONGGRAPH_HOME"):
        return Path(home).expanduser().resolve()
    return checkout() or Path.cwd()


def checkout() -> Path | None:
    """The checkout that this file is in, with ``configs/``; None for an installed wheel."""
    folder = Path(__file__).resolve().parent.parent
    return folder if (folder / "pyproject.toml").exists() else None


def artifacts_folder() -> Path:
    """Everything that a run writes, except ``data/graph.pt``."""
    return project_root() / "artifacts"
