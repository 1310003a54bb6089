"""Runs, versions and aliases in MLflow: the only module that knows its client."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from data.errors import InputError
from registry.backend.location import (
    BUNDLE,
    artifacts_of,
    check_server,
    damaged_database,
    database_of,
    local_bundle,
    resolve_uri,
    unreachable,
    without_credentials,
)
from registry.backend.lock import Turn, busy
from registry.bundle.manifest import MANIFEST, Manifest, read_manifest, verify_bundle, verify_files

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DIGEST_TAG = "bundle_digest"
CHAMPION = "champion"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Version:
    """A registered version: a bundle, by its run, and what was noted about it."""

    name: str
    version: int
    run_id: str
    source: str
    created_ms: int
    tags: dict[str, str] = field(repr=False)

    def check(self, manifest: Manifest) -> None:
        """Refuse a bundle that is whole, but not the one that was registered as this version."""
        if manifest.digest != self.tags.get(DIGEST_TAG):
            raise InputError(
                f"The bundle of version {self.version} of '{self.name}' is another version's: its digest is not the "
                "one that was registered. Restore the folder, or load another version."
            )


@dataclass(frozen=True)
class Run:
    """A run that holds a record: what it says is in its tags, and how it ended in its status."""

    run_id: str
    status: str
    """RUNNING until it is closed, then FINISHED or KILLED."""
    start_ms: int
    tags: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class RunNumbers:
    """What MLflow's UI compares: parameters, metrics by epoch, and the summary."""

    params: Mapping[str, str]
    metrics: list[tuple[str, float, int]]
    """Name, value, step."""
    tags: Mapping[str, str]


class RegistryClient:
    """MLflow's tracking and model registry at one address.

    Args:
        uri: as in ``registry.backend.location.resolve_uri``.
        create: whether an absent SQLite file may be created; readers say that there is none instead.

    Raises:
        InputError: the server does not answer, or there is no database.
    """

    def __init__(self, uri: str | None = None, create: bool = False) -> None:
        self.uri = resolve_uri(uri)
        self.address = without_credentials(self.uri)
        self.database = database_of(self.uri)
        self._turn: Turn | None = None
        if self.database is None:
            check_server(self.uri)
        elif create:
            self.database.parent.mkdir(parents=True, exist_ok=True)
        elif not self.database.is_file():
            raise InputError(f"There is no registry at {self.address}; a training run (`make train`) creates it.")
        _quiet()

    @cached_property
    def _client(self) -> MlflowClient:
        """Made when first used, under the lock and the wording of errors, since it migrates an empty database."""
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @contextmanager
    def locked(self, name: str, wait: bool = True) -> Iterator[None]:
        """Let one process at a time change a model: a lock on the file of a local store, turns on a server.

        Args:
            name: the registered model's name.
            wait: False gives up at once where another process is at work.

        Raises:
            InputError: another process is at work and ``wait`` is false, or it took the turn away (see ``Turn``).
        """
        with self._exclusively(name, wait), self._in_words():
            yield

    def names(self) -> list[str]:
        """The registered models."""
        with self._in_words():
            return sorted(model.name for model in self._client.search_registered_models(max_results=1000))

    def versions(self, name: str) -> list[Version]:
        """All versions of a model, oldest first.

        Raises:
            InputError: there is no such model; those that exist are listed.
        """
        found = self._all_versions(name)
        if not found:
            raise InputError(
                f"There is no model named '{name}' at {self.address}; {_listed('there are', self.names())}."
            )
        return found

    def numbers(self, name: str) -> set[int]:
        """The numbers of a model's versions; empty where the model does not exist."""
        return {version.version for version in self._all_versions(name)}

    def aliases(self, name: str) -> dict[str, int]:
        """Alias to version; empty where the model does not exist."""
        with self._in_words():
            models = self._client.search_registered_models(f"name = '{name}'")
            return {alias: int(version) for model in models for alias, version in model.aliases.items()}

    def get(self, name: str, which: int | str) -> Version:
        """A version by its number or alias.

        Raises:
            InputError: there is none; the numbers and aliases that exist are listed.
        """
        versions = {version.version: version for version in self.versions(name)}
        aliases = self.aliases(name)
        number = int(which) if str(which).isdecimal() else aliases.get(str(which), -1)
        if number not in versions:
            known = [*map(str, versions), *aliases]
            raise InputError(f"The model '{name}' has no version or alias '{which}'; {_listed('it has', known)}.")
        return versions[number]

    def find(self, name: str, digest: str) -> Version | None:
        """The first version that holds a bundle, or None."""
        query = f"name = '{name}' and tags.{DIGEST_TAG} = '{digest}'"
        with self._in_words():
            found = [_version(entity) for entity in self._client.search_model_versions(query)]
        return min(found, key=lambda version: version.version, default=None)

    def create_version(self, name: str, bundle: Path, manifest: Manifest, numbers: RunNumbers) -> Version:
        """Log a run with the bundle and register it; a run that a crash left half-logged is completed."""
        with self._in_words():
            run = self._run(name, manifest.digest)
            self._log(run.info.run_id, run.info.start_time, numbers)
            self._client.log_artifacts(run.info.run_id, str(bundle), BUNDLE)
            self._ensure_model(name)
            source = f"{run.info.artifact_uri}/{BUNDLE}"
            tags = {**numbers.tags, DIGEST_TAG: manifest.digest}
            entity = self._client.create_model_version(name, source, run_id=run.info.run_id, tags=tags)
            self._client.set_terminated(run.info.run_id)
            return _version(entity)

    def repair(self, version: Version, bundle: Path) -> None:
        """Put the files of a local version back where they were damaged or deleted, from the same bundle."""
        folder = self._local_bundle(version)
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

    def note(self, version: Version, key: str, text: str) -> None:
        """Write a tag on a version."""
        with self._in_words():
            self._client.set_model_version_tag(version.name, str(version.version), key, text)

    def point(self, alias: str, version: Version) -> None:
        """Move an alias to a version, in one call; there is no moment without it."""
        if self._turn is not None:
            self._turn.check()
        with self._in_words():
            self._client.set_registered_model_alias(version.name, alias, str(version.version))

    @contextmanager
    def files(self, version: Version, names: Iterable[str] | None = None) -> Iterator[Path]:
        """The folder of a version's bundle for reading: in place in a local store, else downloaded for the while.

        Args:
            version: whose bundle.
            names: files to download, as far as the bundle has them; None means all.
        """
        local = self._local_bundle(version)
        if local is not None:
            yield local
            return
        with tempfile.TemporaryDirectory(prefix="songgraph-bundle-") as folder:
            wanted = [BUNDLE]
            if names is not None:
                present = self.sizes(version)
                wanted = [f"{BUNDLE}/{name}" for name in names if name in present]
            with self._in_words():
                for path in wanted:
                    self._client.download_artifacts(version.run_id, path, folder)
            yield Path(folder) / BUNDLE

    def read(self, version: Version, name: str) -> bytes | None:
        """One file of a version's bundle, checked against the manifest; None where the bundle has no such file.

        Raises:
            InputError: the file or the manifest is damaged.
        """
        if name not in self.sizes(version):
            return None
        with self.files(version, (MANIFEST, name)) as folder:
            manifest = read_manifest(folder)
            verify_files(folder, manifest, [name])
            return (folder / name).read_bytes()

    def sizes(self, version: Version) -> dict[str, int]:
        """Name and bytes of every file of a version's bundle; empty where its files are gone."""
        local = self._local_bundle(version)
        if local is not None:
            return {path.name: path.stat().st_size for path in local.iterdir()} if local.is_dir() else {}
        with self._in_words():
            found = self._client.list_artifacts(version.run_id, BUNDLE)
        return {entry.path.rpartition("/")[2]: int(entry.file_size or 0) for entry in found}

    def attach(self, version: Version, path: Path) -> None:
        """Log a file beside a version's bundle, where MLflow's UI shows it."""
        with self._in_words():
            self._client.log_artifact(version.run_id, str(path))

    def delete_version(self, version: Version) -> None:
        """Take a version out of the registry; its run and files stay until ``delete_run``."""
        if self._turn is not None:
            self._turn.check()
        with self._in_words():
            self._client.delete_model_version(version.name, str(version.version))

    def delete_run(self, run_id: str) -> None:
        """Delete a run and its files; what is gone already is no error."""
        with self._in_words():
            run = self._client.get_run(run_id)
            if self.database:
                shutil.rmtree(artifacts_of(self.database) / run_id, ignore_errors=True)
            else:
                _delete_artifacts(run.info.artifact_uri, self.uri)
            if run.info.lifecycle_stage == "active":
                self._client.delete_run(run_id)

    def open_run(self, experiment: str, title: str, tags: Mapping[str, str], start_ms: int | None = None) -> Run:
        """Begin a run with all its tags, in one transaction."""
        with self._in_words():
            run = self._client.create_run(self._experiment(experiment), start_ms, dict(tags), title)
            return _run(run)

    def tag_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Add tags to a run, in one transaction."""
        from mlflow.entities import RunTag

        with self._in_words():
            self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def close_run(self, run_id: str, status: Literal["FINISHED", "KILLED"]) -> None:
        """Say how a run ended, in one transaction."""
        with self._in_words():
            self._client.set_terminated(run_id, status)

    def runs(self, experiment: str, query: str = "", newest: int | None = None) -> list[Run]:
        """The runs of an experiment that were not deleted, oldest first; of these only the newest, where asked."""
        with self._in_words():
            known = self._client.get_experiment_by_name(experiment)
            if known is None:
                return []
            identifier, order, size = [known.experiment_id], ["attributes.start_time DESC"], newest or 1000
            pages = _pages(
                lambda page: self._client.search_runs(
                    identifier, query, max_results=size, order_by=order, page_token=page
                )
            )
            return [_run(run) for run in islice(pages, newest)][::-1]

    def forget_run(self, run_id: str) -> None:
        """Mark a run as deleted, so that it is no longer found."""
        with self._in_words():
            self._client.delete_run(run_id)

    @contextmanager
    def _exclusively(self, name: str, wait: bool) -> Iterator[None]:
        if self.database is not None:
            with _file_lock(self.database, wait):
                yield
            return
        with Turn(self, name).taken(wait) as turn:
            self._turn = turn
            try:
                yield
            finally:
                self._turn = None

    def _all_versions(self, name: str) -> list[Version]:
        with self._in_words():
            query = f"name = '{name}'"
            found = list(_pages(lambda page: self._client.search_model_versions(query, page_token=page)))
        return sorted(map(_version, found), key=lambda version: version.version)

    def _local_bundle(self, version: Version) -> Path | None:
        return local_bundle(self.database, version.run_id, version.source) if self.database else None

    def _run(self, name: str, digest: str) -> Any:
        experiment = self._experiment(name)
        unfinished = self._client.search_runs([experiment], f"tags.{DIGEST_TAG} = '{digest}'", max_results=1)
        return unfinished[0] if unfinished else self._client.create_run(experiment, tags={DIGEST_TAG: digest})

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        known = self._client.get_experiment_by_name(name)
        location = artifacts_of(self.database).resolve().as_uri() if self.database else None
        try:
            identifier: str = known.experiment_id if known else self._client.create_experiment(name, location)
        except MlflowException:  # another process has just created it
            known = self._client.get_experiment_by_name(name)
            if known is None:
                raise
            identifier = known.experiment_id
        return identifier

    def _log(self, run_id: str, timestamp_ms: int, numbers: RunNumbers) -> None:
        """One time stamp a run, so that what is logged again after a crash is not logged twice."""
        from mlflow.entities import Metric, Param, RunTag

        params = [Param(key, value) for key, value in numbers.params.items()]
        metrics = [Metric(name, value, timestamp_ms, step) for name, value, step in numbers.metrics]
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in numbers.tags.items()])
        for batch in _batches(params, 100):
            self._client.log_batch(run_id, params=batch)
        for batch in _batches(metrics, 1000):
            self._client.log_batch(run_id, metrics=batch)

    def _ensure_model(self, name: str) -> None:
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turn MLflow's and the database's errors into sentences."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except SQLAlchemyError as error:
            raise self._database_error(error) from error
        except MlflowException as error:
            if isinstance(error.__cause__ or error.__context__, SQLAlchemyError):
                raise self._database_error(error) from error
            if self.database is None and "API request to" in str(error):
                raise unreachable(self.address, error) from error
            raise InputError(f"MLflow at {self.address} refused: {str(error).splitlines()[0].rstrip('.')}.") from error

    def _database_error(self, error: Exception) -> InputError:
        assert self.database is not None
        return damaged_database(self.database, ValueError(str(error).splitlines()[0]))


def _quiet() -> None:
    """Turn MLflow's telemetry off and its migrations quiet, which has to happen before it is imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.getLogger("alembic").setLevel(logging.WARNING)


@contextmanager
def _file_lock(database: Path, wait: bool) -> Iterator[None]:
    try:
        with FileLock(f"{database}.lock", timeout=-1 if wait else 0):
            yield
    except Timeout:
        raise busy(f"sqlite:///{database}") from None


def _delete_artifacts(artifact_uri: str, tracking_uri: str) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(artifact_uri, tracking_uri=tracking_uri).delete_artifacts()


def _is_sound(folder: Path) -> bool:
    try:
        verify_bundle(folder)
    except InputError:
        return False
    return True


def _version(entity: Any) -> Version:
    return Version(
        name=entity.name,
        version=int(entity.version),
        run_id=entity.run_id or "",
        source=entity.source,
        created_ms=int(entity.creation_timestamp),
        tags=dict(entity.tags),
    )


def _run(entity: Any) -> Run:
    return Run(entity.info.run_id, entity.info.status, int(entity.info.start_time), dict(entity.data.tags))


def _pages(fetch: Any) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = fetch(token)
        yield from page
        token = page.token
        if not token:
            return


def _batches(values: list[Any], size: int) -> Iterator[list[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _listed(intro: str, names: list[str]) -> str:
    return f"{intro} {', '.join(names)}" if names else f"{intro} none"
