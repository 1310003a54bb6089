"""Runs of MLflow experiments that hold no training: records and lock requests, all in their tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from registry.backend.connection import Connection, pages


@dataclass(frozen=True)
class MlflowRun:
    """A run with its tags."""

    run_id: str
    status: str
    """RUNNING until it is closed, then FINISHED or KILLED."""
    start_ms: int
    tags: dict[str, str] = field(repr=False)


class Runs:
    """Opens, tags, closes, finds and deletes runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def open(self, experiment: str, title: str, tags: Mapping[str, str], start_ms: int | None = None) -> MlflowRun:
        """Begin a run with all its tags, in one transaction; the experiment is created if it does not exist."""
        with self._connection.mlflow() as mlflow:
            identifier = self._connection.experiment(experiment)
            return _run(mlflow.create_run(identifier, start_ms, dict(tags), title))

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Add tags to a run, in one transaction."""
        from mlflow.entities import RunTag

        with self._connection.mlflow() as mlflow:
            mlflow.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def close(self, run_id: str, status: Literal["FINISHED", "KILLED"]) -> None:
        """Set a run's final status, in one transaction."""
        with self._connection.mlflow() as mlflow:
            mlflow.set_terminated(run_id, status)

    def find(self, experiment: str, query: str = "", newest: int | None = None) -> list[MlflowRun]:
        """Return the runs of an experiment, oldest first, without deleted ones.

        Args:
            experiment: its name; an experiment that does not exist has no runs.
            query: MLflow's filter, such as ``tags.kind = 'decision'``.
            newest: return only so many of the newest.
        """
        with self._connection.mlflow() as mlflow:
            known = mlflow.get_experiment_by_name(experiment)
            if known is None:
                return []
            identifier, order, size = [known.experiment_id], ["attributes.start_time DESC"], newest or 1000
            found = pages(
                lambda page: mlflow.search_runs(identifier, query, max_results=size, order_by=order, page_token=page)
            )
            return [_run(run) for run in islice(found, newest)][::-1]

    def delete(self, run_id: str) -> None:
        """Mark a run as deleted, so that it is no longer found."""
        with self._connection.mlflow() as mlflow:
            mlflow.delete_run(run_id)


def _run(entity: Any) -> MlflowRun:
    return MlflowRun(entity.info.run_id, entity.info.status, int(entity.info.start_time), dict(entity.data.tags))
