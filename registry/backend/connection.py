"""One MLflow address: MLflow's client, and its errors as sentences."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from data.errors import InputError
from registry.backend.location import (
    artifacts_of,
    damaged_database,
    database_of,
    resolve_uri,
    unreachable,
    without_credentials,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


TIMEOUT_SECONDS = 10
NOT_FOUND = 404
"""A server that has no page ``/health`` answers too."""


class Connection:
    """MLflow's tracking and model registry at one address.

    Attributes:
        uri: the address, with credentials if it has any.
        address: the same without credentials, to show and to store.
        database: the SQLite file of a local registry; None for a server.

    Args:
        uri: as in ``registry.backend.location.resolve_uri``.
        create: create a missing SQLite file; without it a missing file is an error.

    Raises:
        InputError: the server does not answer, or there is no database.
    """

    def __init__(self, uri: str | None = None, create: bool = False) -> None:
        self.uri = resolve_uri(uri)
        self.address = without_credentials(self.uri)
        self.database = database_of(self.uri)
        _quiet_mlflow()
        if self.database is None:
            self._check_server()
        elif create:
            self.database.parent.mkdir(parents=True, exist_ok=True)
        elif not self.database.is_file():
            raise InputError(f"There is no registry at {self.address}; a training run (`make train`) creates it.")

    @contextmanager
    def mlflow(self) -> Iterator[MlflowClient]:
        """Give MLflow's client to a block; errors of MLflow and of its database become an InputError."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield self._client
        except SQLAlchemyError as error:
            raise self._database_error(error) from error
        except MlflowException as error:
            if isinstance(error.__cause__ or error.__context__, SQLAlchemyError):
                raise self._database_error(error) from error
            if self.database is None and "API request to" in str(error):
                raise unreachable(self.address, _first_cause(error)) from error
            raise InputError(f"MLflow at {self.address} refused: {str(error).splitlines()[0].rstrip('.')}.") from error

    @cached_property
    def _client(self) -> MlflowClient:
        """Made at the first use, so under the registry's lock, since it migrates an empty database."""
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def experiment(self, name: str) -> str:
        """Return the id of an experiment; create it if it does not exist."""
        from mlflow.exceptions import MlflowException

        location = artifacts_of(self.database).resolve().as_uri() if self.database else None
        with self.mlflow() as mlflow:
            known = mlflow.get_experiment_by_name(name)
            try:
                identifier: str = known.experiment_id if known else mlflow.create_experiment(name, location)
            except MlflowException:  # another process has just created it
                known = mlflow.get_experiment_by_name(name)
                if known is None:
                    raise
                identifier = known.experiment_id
        return identifier

    def _check_server(self) -> None:
        """Fail at once if the server does not answer; MLflow's client would repeat a call for minutes."""
        from mlflow.exceptions import MlflowException
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        credentials = get_default_host_creds(self.uri)
        try:
            answer = http_request(credentials, "/health", "GET", max_retries=0, timeout=TIMEOUT_SECONDS)
        except MlflowException as error:
            raise unreachable(self.address, _first_cause(error)) from error
        if not answer.ok and answer.status_code != NOT_FOUND:
            raise unreachable(self.address, f"HTTP Error {answer.status_code}: {answer.reason}")

    def _database_error(self, error: Exception) -> InputError:
        assert self.database is not None
        return damaged_database(self.database, str(_first_cause(error)).splitlines()[0])


def pages(fetch: Callable[[str | None], Any]) -> Iterator[Any]:
    """Yield the entries of all pages of a search of MLflow's client, given the search of one page token."""
    token: str | None = None
    while True:
        page = fetch(token)
        yield from page
        token = page.token
        if not token:
            return


def _first_cause(error: BaseException) -> BaseException:
    """Return the error of the database or the network itself; MLflow's own text quotes the URL with its password."""
    while (earlier := error.__cause__ or error.__context__) and not isinstance(earlier, InputError):
        error = earlier
    return error


def _quiet_mlflow() -> None:
    """Turn MLflow's telemetry off and its migrations quiet; this has to happen before MLflow is imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.getLogger("alembic").setLevel(logging.WARNING)
