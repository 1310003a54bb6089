"""Versions and aliases of registered models in MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import InputError
from registry.backend.bundle_store import BUNDLE, BundleStore
from registry.backend.connection import Connection, pages
from registry.backend.location import database_of, resolve_uri
from registry.backend.lock import Lease
from registry.backend.runs import Runs
from registry.backend.version import DIGEST_TAG, Version
from registry.bundle.manifest import Manifest

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CHAMPION = "champion"


@dataclass(frozen=True)
class RunNumbers:
    """Numbers for MLflow's UI: parameters, metrics by epoch, and the summary."""

    params: Mapping[str, str]
    metrics: list[tuple[str, float, int]]
    """Name, value, step."""
    tags: Mapping[str, str]


class RegistryClient(Connection):
    """The registry at one address: its models, their versions and their aliases.

    Attributes:
        runs: the runs that hold records.
        bundles: the files of the versions.
    """

    def __init__(self, uri: str | None = None, create: bool = False) -> None:
        super().__init__(uri, create)
        self.runs = Runs(self)
        self.bundles = BundleStore(self)

    def names(self) -> list[str]:
        """Return the names of the registered models."""
        with self.mlflow() as mlflow:
            return sorted(model.name for model in mlflow.search_registered_models(max_results=1000))

    def versions(self, name: str) -> list[Version]:
        """Return all versions of a model, oldest first.

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
        """Return the numbers of a model's versions; empty if the model does not exist."""
        return {version.version for version in self._all_versions(name)}

    def aliases(self, name: str) -> dict[str, int]:
        """Return the version of each alias; empty if the model does not exist."""
        with self.mlflow() as mlflow:
            models = mlflow.search_registered_models(f"name = '{name}'")
            return {alias: int(version) for model in models for alias, version in model.aliases.items()}

    def get(self, name: str, which: int | str) -> Version:
        """Return a version by its number or alias.

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
        """Return the first version that holds a bundle, or None."""
        found = self._search(f"name = '{name}' and tags.{DIGEST_TAG} = '{digest}'")
        return min(found, key=lambda version: version.version, default=None)

    def has(self, name: str, version: int | str, run_id: str | None = None) -> bool:
        """Return if a version is registered, see ``exists``."""
        query = f"name = '{name}'" + ("" if run_id is None else f" and run_id = '{run_id}'")
        return any(
            str(found.version) == str(version) and self.bundles.is_complete(found) for found in self._search(query)
        )

    def create_version(self, name: str, bundle: Path, manifest: Manifest, numbers: RunNumbers) -> Version:
        """Log a run with the bundle and register it; a run that a crash left half-logged is completed."""
        with self.mlflow() as mlflow:
            run = self._run(mlflow, name, manifest.digest)
            self._log(mlflow, run.info.run_id, run.info.start_time, numbers)
            mlflow.log_artifacts(run.info.run_id, str(bundle), BUNDLE)
            self._ensure_model(mlflow, name)
            source = f"{run.info.artifact_uri}/{BUNDLE}"
            tags = {**numbers.tags, DIGEST_TAG: manifest.digest}
            entity = mlflow.create_model_version(name, source, run_id=run.info.run_id, tags=tags)
            mlflow.set_terminated(run.info.run_id)
            return Version.of(entity)

    def note(self, version: Version, key: str, text: str) -> None:
        """Write a tag on a version."""
        with self.mlflow() as mlflow:
            mlflow.set_model_version_tag(version.name, str(version.version), key, text)

    def point(self, alias: str, version: Version, lease: Lease) -> None:
        """Move an alias to a version in one call, so that the alias is never missing.

        Raises:
            InputError: another process has taken the model's lock over.
        """
        lease.check()
        with self.mlflow() as mlflow:
            mlflow.set_registered_model_alias(version.name, alias, str(version.version))

    def delete_version(self, version: Version, lease: Lease) -> None:
        """Take a version out of the registry; its run and files stay until ``bundles.delete``.

        Raises:
            InputError: another process has taken the model's lock over.
        """
        lease.check()
        with self.mlflow() as mlflow:
            mlflow.delete_model_version(version.name, str(version.version))

    def _all_versions(self, name: str) -> list[Version]:
        return sorted(self._search(f"name = '{name}'"), key=lambda version: version.version)

    def _search(self, query: str) -> list[Version]:
        with self.mlflow() as mlflow:
            found = pages(lambda page: mlflow.search_model_versions(query, page_token=page))
            return [Version.of(entity) for entity in found]

    def _run(self, mlflow: MlflowClient, name: str, digest: str) -> Any:
        experiment = self.experiment(name)
        unfinished = mlflow.search_runs([experiment], f"tags.{DIGEST_TAG} = '{digest}'", max_results=1)
        return unfinished[0] if unfinished else mlflow.create_run(experiment, tags={DIGEST_TAG: digest})

    def _log(self, mlflow: MlflowClient, run_id: str, timestamp_ms: int, numbers: RunNumbers) -> None:
        """Log with one time stamp a run, so that what is logged again after a crash is not there twice."""
        from mlflow.entities import Metric, Param, RunTag

        params = [Param(key, value) for key, value in numbers.params.items()]
        metrics = [Metric(name, value, timestamp_ms, step) for name, value, step in numbers.metrics]
        mlflow.log_batch(run_id, tags=[RunTag(key, value) for key, value in numbers.tags.items()])
        for batch in _batches(params, 100):
            mlflow.log_batch(run_id, params=batch)
        for batch in _batches(metrics, 1000):
            mlflow.log_batch(run_id, metrics=batch)

    def _ensure_model(self, mlflow: MlflowClient, name: str) -> None:
        if not mlflow.search_registered_models(f"name = '{name}'"):
            mlflow.create_registered_model(name)


def exists(name: str, version: int | str, uri: str | None = None, run_id: str | None = None) -> bool:
    """Return if a version is registered; in a local registry the files of its bundle have to be there too.

    The content of the files is verified when they are loaded.

    Args:
        name: the registered model's name.
        version: the version's number.
        uri: the registry's address, see ``registry.backend.location.resolve_uri``.
        run_id: the run that holds the version; a registry that was started again counts from 1 again.

    Raises:
        InputError: the server cannot be reached, or the database cannot be read.
    """
    database = database_of(resolve_uri(uri))
    if database is not None and not database.is_file():
        return False
    return RegistryClient(uri).has(name, version, run_id)


def _batches(values: list[Any], size: int) -> Iterator[list[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _listed(intro: str, names: list[str]) -> str:
    return f"{intro} {', '.join(names)}" if names else f"{intro} none"
