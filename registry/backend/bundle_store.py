"""The files of registered versions: read, restored and deleted, in a local registry or on a server."""

from __future__ import annotations

import logging
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import InputError
from registry.backend.connection import Connection
from registry.backend.location import artifacts_of
from registry.backend.version import Version
from registry.bundle.manifest import BUNDLE_FILES, MANIFEST, read_manifest, verify_bundle, verify_files

BUNDLE = "bundle"
"""Folder of the bundle in the artifacts of its run."""

logger = logging.getLogger(__name__)


class BundleStore:
    """The bundles of one registry; each lies in the artifacts of its version's run."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def folder(self, version: Version, names: Iterable[str] | None = None) -> Iterator[Path]:
        """Give the folder of a version's bundle to read: in place if the registry is local, else downloaded.

        Args:
            version: the version.
            names: files to download, if the bundle has them; None means all. A downloaded folder is deleted afterwards.
        """
        local = self._local(version)
        if local is not None:
            yield local
            return
        with tempfile.TemporaryDirectory(prefix="songgraph-bundle-") as folder:
            wanted = [BUNDLE]
            if names is not None:
                present = self.sizes(version)
                wanted = [f"{BUNDLE}/{name}" for name in names if name in present]
            with self._connection.mlflow() as mlflow:
                for path in wanted:
                    mlflow.download_artifacts(version.run_id, path, folder)
            yield Path(folder) / BUNDLE

    def read(self, version: Version, name: str) -> bytes | None:
        """Return one file of a version's bundle, checked against the manifest; None if the bundle has no such file.

        Raises:
            InputError: the file or the manifest is damaged.
        """
        if name not in self.sizes(version):
            return None
        with self.folder(version, (MANIFEST, name)) as folder:
            manifest = read_manifest(folder)
            verify_files(folder, manifest, [name])
            return (folder / name).read_bytes()

    def sizes(self, version: Version) -> dict[str, int]:
        """Return name and bytes of every file of a version's bundle; empty if its files are gone."""
        local = self._local(version)
        if local is not None:
            return {path.name: path.stat().st_size for path in local.iterdir()} if local.is_dir() else {}
        with self._connection.mlflow() as mlflow:
            found = mlflow.list_artifacts(version.run_id, BUNDLE)
        return {entry.path.rpartition("/")[2]: int(entry.file_size or 0) for entry in found}

    def is_complete(self, version: Version) -> bool:
        """Return if the files of a local version are there; on a server they are not looked for."""
        folder = self._local(version)
        return folder is None or all((folder / name).is_file() for name in (*BUNDLE_FILES, MANIFEST))

    def repair(self, version: Version, bundle: Path) -> None:
        """Restore the damaged or deleted files of a local version from the same bundle."""
        folder = self._local(version)
        if folder is None or _is_sound(folder):
            return
        logger.warning(
            "The files of version %s of %s were damaged or gone; they are restored.", version.version, version.name
        )
        fresh = folder.with_name(f"{BUNDLE}.restored")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(bundle, fresh)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)

    def attach(self, version: Version, path: Path) -> None:
        """Log a file beside a version's bundle, where MLflow's UI shows it."""
        with self._connection.mlflow() as mlflow:
            mlflow.log_artifact(version.run_id, str(path))

    def delete(self, run_id: str) -> None:
        """Delete a run and its files; a run that is already deleted is no error."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with self._connection.mlflow() as mlflow:
            run = mlflow.get_run(run_id)
            if self._connection.database:
                shutil.rmtree(artifacts_of(self._connection.database) / run_id, ignore_errors=True)
            else:
                get_artifact_repository(run.info.artifact_uri, tracking_uri=self._connection.uri).delete_artifacts()
            if run.info.lifecycle_stage == "active":
                mlflow.delete_run(run_id)

    def _local(self, version: Version) -> Path | None:
        """Return the folder beside the database, which can be moved with it, else the one that MLflow noted."""
        if self._connection.database is None:
            return None
        beside = artifacts_of(self._connection.database) / version.run_id / "artifacts" / BUNDLE
        noted = urllib.parse.urlparse(version.source)
        if beside.is_dir() or noted.scheme not in ("", "file"):
            return beside
        return Path(urllib.parse.unquote(noted.path))


def _is_sound(folder: Path) -> bool:
    try:
        verify_bundle(folder)
    except InputError:
        return False
    return True
