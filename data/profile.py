"""The profile of a log: rows kept and rejected, counts, and the distribution of the listens, as plain JSON values.

The report shows it, and the registry's gate compares it with those of earlier runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import BY, LISTENS, NODE_TYPES, graph_counts

QUANTILES = {"min": 0.0, "p10": 0.1, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}

Ints = npt.NDArray[np.int64]


def graph_profile(graph: HeteroData, listens_folder: Path) -> dict[str, Any]:
    """Return the profile of a whole graph and of the log that it was built from.

    Args:
        graph: the whole graph, without masks.
        listens_folder: the output of the ingest stage; its ``counts.json`` counts the rows of the log.

    Returns:
        ``rows`` (``read`` = ``kept`` + ``rejected`` + ``duplicates`` + the sum of ``dropped``, which is by rule;
        ``rejected_by_reason``), ``rejected_share`` of the rows read, ``events`` (rows kept), ``plays`` (their sum),
        ``users``, ``songs``, ``artists``, ``pairs``, ``song_artists``, ``first_day`` and ``last_day`` (ISO, None if
        the log has no times), and ``degrees`` of each node type (see ``degree_profile``): songs of a user, listeners of
        a song, songs of an artist.

    Raises:
        InputError: ``counts.json`` is missing or damaged.
    """
    counts = _read_counts(listens_folder / "counts.json")
    return {
        "rows": {name: counts[name] for name in ("read", "kept", "rejected", "duplicates", "dropped")}
        | {"rejected_by_reason": counts["rejected_by_reason"]},
        "rejected_share": counts["rejected"] / max(counts["read"], 1),
        "events": counts["kept"],
        "plays": int(graph[LISTENS].plays.sum()),
        **graph_counts(graph),
        "first_day": counts.get("first_day"),
        "last_day": counts.get("last_day"),
        "degrees": {kind: degree_profile(degrees) for kind, degrees in _degrees(graph).items()},
    }


def degree_profile(degrees: Ints) -> dict[str, Any]:
    """Return the distribution of the degrees (N,) of one node type.

    Returns:
        ``mean`` and quantiles (``min``, ``p10``, ``p25``, ``median``, ``p75``, ``p90``, ``p99``, ``max``) over all N
        nodes, all 0 if there are none; ``isolated``, the number of nodes of degree 0; and the ``histogram`` of the
        others: bin i counts degrees from ``edges[i]`` to below ``edges[i + 1]``, which is twice ``edges[i]``.
    """
    values = degrees if len(degrees) else np.zeros(1, dtype=np.int64)
    found = np.quantile(values, list(QUANTILES.values()))
    return {
        "mean": float(values.mean()),
        **{name: float(value) for name, value in zip(QUANTILES, found, strict=True)},
        "isolated": int((degrees == 0).sum()),
        "histogram": _histogram(degrees),
    }


def _histogram(degrees: Ints) -> dict[str, list[int]]:
    top = int(degrees.max()) if len(degrees) else 0
    edges = [2**power for power in range(top.bit_length() + 1)]
    bins = np.bincount(np.log2(degrees[degrees > 0]).astype(np.int64), minlength=len(edges) - 1)
    return {"edges": edges, "counts": bins.tolist()}


def _degrees(graph: HeteroData) -> dict[str, Ints]:
    users, songs = graph[LISTENS].edge_index
    ends = dict(zip(NODE_TYPES, (users, songs, graph[BY].edge_index[1]), strict=True))
    return {kind: nodes.bincount(minlength=int(graph[kind].num_nodes)).numpy() for kind, nodes in ends.items()}


def _read_counts(path: Path) -> Mapping[str, Any]:
    try:
        counts: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"The listens folder lacks {path.name} (looked for {path}); run the ingest stage.") from None
    except ValueError:
        raise InputError(f"{path} is not readable JSON; delete it and run the ingest stage.") from None
    return counts
