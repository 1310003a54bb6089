"""Where the registry is, and what can be asked of it without loading MLflow."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing
from pathlib import Path

from data.errors import InputError
from data.project import project_root
from registry.bundle.manifest import BUNDLE_FILES, MANIFEST

BUNDLE = "bundle"
"""Where in a run's artifacts the bundle lies."""

SQLITE = "sqlite:///"
TIMEOUT_SECONDS = 10


def resolve_uri(uri: str | None = None, home: Path | None = None) -> str:
    """The registry's address: as given, else ``MLFLOW_TRACKING_URI``, else a SQLite file under ``artifacts/mlflow``.

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
    """The address as it may be shown and stored: without user and password."""
    parts = urllib.parse.urlsplit(uri)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in uri else uri


def database_of(uri: str) -> Path | None:
    """The SQLite file of an address, or None for a server."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def local_bundle(database: Path, run_id: str, source: str) -> Path:
    """The folder of a version's bundle in a local store: beside the database, so that both can be moved together."""
    beside = artifacts_of(database) / run_id / "artifacts" / BUNDLE
    elsewhere = urllib.parse.urlparse(source)
    if beside.is_dir() or elsewhere.scheme not in ("", "file"):
        return beside
    return Path(urllib.parse.unquote(elsewhere.path))


def artifacts_of(database: Path) -> Path:
    """Where a local store keeps the files of its runs."""
    return database.parent / "artifacts"


def exists(name: str, version: int | str, uri: str | None = None, run_id: str | None = None) -> bool:
    """Whether a version is registered, without importing MLflow; so a cached registration is verified cheaply.

    In a local store the files of its bundle have to be there too; their content is verified when they are loaded.

    Args:
        name: the registered model's name.
        version: the version's number.
        uri: the registry's address, see ``resolve_uri``.
        run_id: the run that the version has to be of: a registry that was begun anew counts from 1 again.

    Raises:
        InputError: the server cannot be reached, or the database cannot be read.
    """
    address = resolve_uri(uri)
    database = database_of(address)
    found = _in_database(database, name, version) if database else _on_server(address, name, version)
    return found is not None and run_id in (None, found)


def check_server(uri: str) -> None:
    """Fail at once, in a sentence, where MLflow's client would go on trying for minutes.

    Raises:
        InputError: the server does not answer.
    """
    _get(f"{uri}/health", uri)


def _in_database(database: Path, name: str, version: int | str) -> str | None:
    """The run that a version is of; None where there is no such version, or its files are gone."""
    if not database.is_file():
        return None
    query = (
        "SELECT run_id, source FROM model_versions "
        "WHERE name = ? AND version = ? AND current_stage != 'Deleted_Internal'"
    )
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=TIMEOUT_SECONDS)) as connection:
            row = connection.execute(query, (name, int(version))).fetchone()
    except sqlite3.Error as error:
        raise damaged_database(database, error) from error
    return str(row[0]) if row is not None and _is_complete(local_bundle(database, *row)) else None


def _is_complete(bundle: Path) -> bool:
    return all((bundle / name).is_file() for name in (*BUNDLE_FILES, MANIFEST))


def damaged_database(database: Path, error: Exception) -> InputError:
    """What to say of a SQLite file that does not open."""
    return InputError(
        f"The registry's database {database} cannot be used ({error}); restore it from a backup, "
        "or move it away to start with an empty registry."
    )


def _on_server(uri: str, name: str, version: int | str) -> str | None:
    query = urllib.parse.urlencode({"name": name, "version": version})
    answer = _get(f"{uri}/api/2.0/mlflow/model-versions/get?{query}", uri)
    found = json.loads(answer).get("model_version") if answer is not None else None
    return None if found is None else str(found.get("run_id", ""))


def _get(url: str, uri: str) -> bytes | None:
    """The body, or None where the server says that the thing does not exist."""
    try:
        with urllib.request.urlopen(_request(url), timeout=TIMEOUT_SECONDS) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise unreachable(uri, error) from error
    except (OSError, ValueError) as error:
        raise unreachable(uri, error) from error


def _request(url: str) -> urllib.request.Request:
    """With the credentials that MLflow's own client takes from the environment."""
    token, user = os.environ.get("MLFLOW_TRACKING_TOKEN"), os.environ.get("MLFLOW_TRACKING_USERNAME")
    if user:
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
    scheme = "Basic" if user else "Bearer"
    return urllib.request.Request(url, headers={"Authorization": f"{scheme} {token}"} if token else {})


def unreachable(uri: str, error: Exception) -> InputError:
    """What to say of a server that does not answer."""
    return InputError(
        f"The MLflow server at {without_credentials(uri)} cannot be reached ({error}); start it (`make mlflow`), "
        "or correct MLFLOW_TRACKING_URI."
    )


def busy(address: str) -> InputError:
    """Say that another process changes the registry, to someone who does not want to wait."""
    return InputError(f"Another process is changing the registry at {address}; try again when it is done.")
