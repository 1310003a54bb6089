"""The listens table in memory: rows (user, song, day) as arrays, and their sums for each user-song pair."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import InputError
from data.weights import listen_weight

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

REQUIRED = ("user", "song", "plays")
SPLIT_NAMES = ("train", "valid", "test")


@dataclass(frozen=True)
class Listens:
    """Rows of ``listens.parquet``, sorted by user, song and day; a column that the log does not have is None.

    Every array is (R,). Days are counted from 1970-01-01 UTC, times are seconds UTC. ``completion`` is NaN if it is not
    known. ``split`` is an index into ``SPLIT_NAMES``, or -1 if the row has no value.
    """

    user: Ints
    song: Ints
    plays: Ints
    day: Ints | None = None
    skips: Ints | None = None
    completion: Floats | None = None
    first_played: Ints | None = None
    last_played: Ints | None = None
    split: Ints | None = None

    @classmethod
    def from_table(cls, table: pa.Table) -> Listens:
        """Read the columns of a listens table.

        Raises:
            InputError: a required column is missing or incomplete, or the rows are not sorted by user and song.
        """
        columns = {field.name: _column(table, field.name) for field in fields(cls)}
        absent = [name for name in REQUIRED if columns[name] is None]
        if absent:
            raise InputError(
                f"The listens table needs the column '{absent[0]}' without nulls; "
                f"it has {', '.join(table.column_names)}."
            )
        listens = cls(**columns)  # type: ignore[arg-type]  # the required ones were checked
        if not listens.is_sorted():
            raise InputError("The listens table is not sorted by user, song and day; run the ingest stage again.")
        return listens

    def __len__(self) -> int:
        return len(self.user)

    def is_sorted(self) -> bool:
        """Return whether the pairs are in order, with the rows of each pair adjacent."""
        step_user, step_song = np.diff(self.user), np.diff(self.song)
        return bool(np.all((step_user > 0) | ((step_user == 0) & (step_song >= 0))))

    def rows(self, keep: Mask) -> Listens:
        """Return the rows for which ``keep`` (R,) is true."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        kept: dict[str, Any] = {name: None if values is None else values[keep] for name, values in columns.items()}
        return Listens(**kept)

    def starts(self) -> Ints:
        """Return the first row of each pair: (P,)."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        changes = (np.diff(self.user) != 0) | (np.diff(self.song) != 0)
        return np.concatenate([[0], np.flatnonzero(changes) + 1])

    def pair_of_row(self) -> Ints:
        """Return the index of each row's pair: (R,)."""
        lengths = np.diff(np.append(self.starts(), len(self)))
        return np.repeat(np.arange(len(lengths)), lengths)

    def pairs(self) -> Ints:
        """Return user and song of each pair, sorted: (2, P)."""
        starts = self.starts()
        return np.stack([self.user[starts], self.song[starts]])

    def attributes(self, half_life_days: float) -> dict[str, npt.NDArray[Any]]:
        """Combine the rows of each pair; the age of a listen is counted back from the last day of all rows.

        Returns:
            arrays (P,): ``plays``, ``weight`` (float32) and, if the log has them, ``skips``, ``completion`` (float32,
            mean weighted by plays, 1 if it is not known), ``first_played``, ``last_played`` (seconds UTC).
        """
        starts = self.starts()
        found = {"plays": _reduce(np.add, self.plays, starts), "weight": self._weight(starts, half_life_days)}
        if self.skips is not None:
            found["skips"] = _reduce(np.add, self.skips, starts)
        if self.completion is not None:
            found["completion"] = self._mean_completion(self.completion, starts)
        if self.first_played is not None and self.last_played is not None:
            found["first_played"] = _reduce(np.minimum, self.first_played, starts)
            found["last_played"] = _reduce(np.maximum, self.last_played, starts)
        return found

    def _weight(self, starts: Ints, half_life_days: float) -> npt.NDArray[np.float32]:
        complete = np.ones(len(self)) if self.completion is None else self.completion
        age = np.zeros(len(self)) if self.day is None or not len(self) else self.day.max() - self.day
        return listen_weight(self.plays, complete, age, half_life_days, starts).astype(np.float32)

    def _mean_completion(self, completion: Floats, starts: Ints) -> npt.NDArray[np.float32]:
        plays = np.where(np.isnan(completion), 0, self.plays)
        heard = _reduce(np.add, plays * np.nan_to_num(completion), starts)
        total = _reduce(np.add, plays, starts)
        return np.divide(heard, total, out=np.ones(len(starts)), where=total > 0).astype(np.float32)


def _reduce(ufunc: np.ufunc, values: npt.NDArray[Any], starts: Ints) -> npt.NDArray[Any]:
    reduced: npt.NDArray[Any] = ufunc.reduceat(values, starts) if len(starts) else values
    return reduced


def _column(table: pa.Table, name: str) -> npt.NDArray[Any] | None:
    """Return a column as an array, or None if it is absent, all null or, for counts and times, has any null."""
    if name not in table.column_names or table[name].null_count == len(table) > 0:
        return None
    column = table[name].combine_chunks()
    if name == "completion":
        return _numbers(column, pa.float64())
    if name == "split":
        return _numbers(pc.fill_null(pc.index_in(column, pa.array(SPLIT_NAMES)), -1), pa.int64())
    return None if column.null_count else _numbers(column, pa.int64())


def _numbers(column: pa.Array, kind: pa.DataType) -> npt.NDArray[Any]:
    numbers: npt.NDArray[Any] = column.cast(kind).to_numpy(zero_copy_only=False)
    return numbers
