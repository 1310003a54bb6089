"""Text files as bytes: checks that they are complete, and reads their first line.

DuckDB reads a truncated zstd stream to its last good byte without an error, and does not check the checksums of gzip.
So Arrow, which does both, reads every text file once before.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from data.errors import InputError

_CHUNK = 1 << 22
_HEAD = 1 << 20


def check_text(path: Path, compression: str | None) -> None:
    """Read a text file once from start to end.

    Raises:
        InputError: it cannot be decompressed to its end, or it is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = 0
    for chunk in _chunks(path, compression):
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, lines + error.object[: error.start].count(b"\n") + 1) from None
        lines += chunk.count(b"\n")
    if decoder.getstate()[0]:
        raise _not_utf8(path, lines + 1)


def first_line(path: Path, compression: str | None) -> str:
    """Return the first line, without its line end and byte order mark; empty if the file is empty."""
    with pa.input_stream(str(path), compression=compression) as stream:
        head = stream.read(_HEAD)
    return head.split(b"\n", 1)[0].decode("utf-8-sig", errors="replace").rstrip("\r")


def _chunks(path: Path, compression: str | None) -> Iterator[bytes]:
    with pa.input_stream(str(path), compression=compression) as stream:
        while True:
            try:
                chunk = stream.read(_CHUNK)
            except OSError as error:
                if compression is None:
                    raise
                raise InputError(
                    f"{path} is not a whole {compression} file ({error}); copy or compress it again."
                ) from None
            if not chunk:
                return
            yield chunk


def _not_utf8(path: Path, line: int) -> InputError:
    return InputError(f"{path} is not UTF-8 in line {line}; convert it, for example with iconv -t UTF-8.")
