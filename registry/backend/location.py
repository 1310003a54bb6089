"""The registry's address, and the sentences for what goes wrong there."""

from __future__ import annotations

import os
import urllib.parse
from pathlib import Path

from data.errors import InputError
from data.project import project_root

SQLITE = "sqlite:///"


def resolve_uri(uri: str | None = None, home: Path | None = None) -> str:
    """Return the address: ``uri``, else ``MLFLOW_TRACKING_URI``, else the SQLite file of ``artifacts/mlflow``.

    Args:
        uri: ``sqlite:///path`` or ``http(s)://host``.
        home: the project's root for the default and for relative SQLite paths; None means ``SONGGRAPH_HOME``, else
            the checkout, else the current folder.

    Raises:
        InputError: another kind of address.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}artifacts/mlflow/mlflow.db"
    if chosen.startswith(SQLITE):
        return f"{SQLITE}{(home or project_root()) / chosen.removeprefix(SQLITE)}"
    if chosen.startswith(("http://", "https://")):
        return chosen.rstrip("/")
    raise InputError(f"The registry's address is '{chosen}'; allowed are sqlite:///path and http(s)://host.")


def without_credentials(uri: str) -> str:
    """Return an address without user and password, as it may be shown and stored."""
    parts = urllib.parse.urlsplit(uri)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in uri else uri


def database_of(uri: str) -> Path | None:
    """Return the SQLite file of an address, or None for a server."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def artifacts_of(database: Path) -> Path:
    """Return the folder in which a local registry keeps the files of its runs."""
    return database.parent / "artifacts"


def damaged_database(database: Path, error: object) -> InputError:
    """Say that a SQLite file does not open."""
    return InputError(
        f"The registry's database {database} cannot be used ({error}); restore it from a backup, "
        "or move it away to start with an empty registry."
    )


def unreachable(address: str, error: object) -> InputError:
    """Say that a server does not answer; ``address`` is without credentials."""
    return InputError(
        f"The MLflow server at {address} cannot be reached ({error}); start it (`make mlflow`), "
        "or correct MLFLOW_TRACKING_URI."
    )


def busy(address: str) -> InputError:
    """Say that another process changes the registry, to someone who does not want to wait."""
    return InputError(f"Another process is changing the registry at {address}; try again when it is done.")
