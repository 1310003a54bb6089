"""A DuckDB database in a folder, with a memory limit and readable errors."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import InputError
from data.events.sql import literal

Result = TypeVar("Result")

_ROW_GROUP = 1 << 20
_NO_USE_TRYING_AGAIN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


@contextmanager
def database(folder: Path, memory_limit: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database in ``folder``, which is removed at the end.

    Data that does not fit into ``memory_limit`` spills into the same folder.

    Raises:
        InputError: the limit is too low, or the folder cannot be written to (read-only or full).
    """
    settings: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    with _readable_errors(folder, memory_limit):
        folder.mkdir(parents=True, exist_ok=True)
        db = duckdb.connect(config=settings | {"temp_directory": str(folder)})
        try:
            db.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
            db.execute(f"SET memory_limit = '{memory_limit}'")
            # on disk, so that a large log is compressed; without a write-ahead log, because it is never recovered
            file = literal(str(folder / "ingest.duckdb"))
            db.execute(f"ATTACH {file} AS log (RECOVERY_MODE no_wal_writes)")
            db.execute("USE log; PRAGMA disable_checkpoint_on_shutdown")
            yield db
        finally:
            db.close()
            shutil.rmtree(folder, ignore_errors=True)


def run_interruptibly(db: duckdb.DuckDBPyConnection, work: Callable[[], Result]) -> Result:
    """Run ``work``, which uses ``db``, in a thread; a signal then stops it soon, and its handler's exception is raised.

    Without this, DuckDB 2.0 sometimes misses a signal during a query and runs the query to its end.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(work)
        try:
            return future.result()
        except BaseException:
            while not future.done():  # repeatedly, because an interrupt between two queries has no effect
                db.interrupt()
                wait([future], timeout=0.05)
            raise


def write_parquet(db: duckdb.DuckDBPyConnection, query: str, path: Path) -> int:
    """Write the rows of a sorted query and return their number.

    Arrow writes the file, in row groups of a fixed size: the bytes of DuckDB's writer may depend on threads and memory.
    """
    reader: pa.RecordBatchReader = db.sql(query).to_arrow_reader(_ROW_GROUP)
    rows = 0
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for table in _row_groups(reader):
            writer.write_table(table, row_group_size=_ROW_GROUP)
            rows += table.num_rows
    return rows


def _row_groups(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    held = pa.Table.from_batches([], reader.schema)
    for batch in reader:
        held = pa.concat_tables([held, pa.Table.from_batches([batch])])
        if held.num_rows >= _ROW_GROUP:
            yield held.slice(0, _ROW_GROUP).combine_chunks()
            held = held.slice(_ROW_GROUP)
    if held.num_rows:
        yield held.combine_chunks()


@contextmanager
def _readable_errors(folder: Path, memory_limit: str) -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise InputError(
            f"The log does not fit into memory_limit {memory_limit} and the free disk below {folder} "
            f"({str(error).splitlines()[0]}); raise the limit or free some disk."
        ) from None
    except duckdb.IOException as error:
        raise InputError(
            f"{folder} cannot be written to ({str(error).splitlines()[0]}); free or unlock the disk."
        ) from None
    except OSError as error:
        if error.errno in _NO_USE_TRYING_AGAIN:
            raise InputError(f"{folder} cannot be written to ({error.strerror}); free or unlock the disk.") from None
        raise
