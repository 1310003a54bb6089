"""Stable numbers for ids: the same id has the same hash on every night and every machine."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

_63_BITS = (1 << 63) - 1


def id_hash(identifier: str) -> int:
    """Hash an id to a non-negative 63-bit integer: the last 8 bytes of its MD5, little-endian, without the top bit.

    Node numbers shift when a user or song appears; this number does not, so a split that hashes it stays put. MD5 is
    used for its spread and because DuckDB computes it; nothing here is a secret.
    """
    digest = hashlib.md5(identifier.encode("utf-8"), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little") & _63_BITS


def id_hash_sql(column: str) -> str:
    """The DuckDB expression that equals ``id_hash`` of a VARCHAR column."""
    return f"(md5_number_lower({column}) & {_63_BITS}::UBIGINT)::BIGINT"


def rows_of(hashes: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(K,) the row of each wanted id hash (K,) among the distinct ``hashes`` (N,), -1 where it is not there."""
    if not len(hashes):
        return np.full(len(wanted), -1)
    order = np.argsort(hashes)
    place = np.minimum(np.searchsorted(hashes, wanted, sorter=order), len(hashes) - 1)
    return np.where(hashes[order[place]] == wanted, order[place], -1)
