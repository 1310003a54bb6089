"""Stable hashes of ids: an id has the same hash on every day and on every machine."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

_63_BITS = (1 << 63) - 1


def id_hash(identifier: str) -> int:
    """Hash an id to a non-negative 63-bit integer: the last 8 bytes of its MD5, little-endian, without the top bit.

    Node numbers change when a user or a song is added. The hash does not change, so a split by hash is stable. MD5 is
    used because it is uniform and DuckDB can compute it; security does not matter here.
    """
    digest = hashlib.md5(identifier.encode("utf-8"), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little") & _63_BITS


def id_hash_sql(column: str) -> str:
    """Return the DuckDB expression for ``id_hash`` of a VARCHAR column."""
    return f"(md5_number_lower({column}) & {_63_BITS}::UBIGINT)::BIGINT"


def rows_of(hashes: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the row of each wanted id hash (K,) in the distinct ``hashes`` (N,), or -1 if it is not there: (K,)."""
    if not len(hashes):
        return np.full(len(wanted), -1)
    order = np.argsort(hashes)
    place = np.minimum(np.searchsorted(hashes, wanted, sorter=order), len(hashes) - 1)
    return np.where(hashes[order[place]] == wanted, order[place], -1)
