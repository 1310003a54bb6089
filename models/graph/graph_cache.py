"""Keeps values that were computed from a graph for as long as the graph lives."""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

from torch_geometric.data import HeteroData

T = TypeVar("T")


class GraphCache(Generic[T]):
    """A weak dictionary by identity: ``WeakKeyDictionary`` does not take ``HeteroData``, which has no hash.

    A graph that is changed in place keeps its old value, so treat graphs as immutable.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[HeteroData], T]] = {}

    def get(self, graph: HeteroData) -> T | None:
        """Return the value of ``graph``, or None."""
        entry = self._known.get(id(graph))
        return entry[1] if entry is not None and entry[0]() is graph else None

    def set(self, graph: HeteroData, value: T) -> T:
        """Keep ``value`` until ``graph`` is gone, and return it."""
        key = id(graph)
        self._known[key] = weakref.ref(graph, lambda gone: self._forget(key, gone)), value
        return value

    def _forget(self, key: int, gone: weakref.ref[HeteroData]) -> None:
        if key in self._known and self._known[key][0] is gone:
            del self._known[key]
