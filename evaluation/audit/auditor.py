"""The whole audit of a training graph, and of a trainer on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import LISTENS, has_masks, message_graph
from data.listens import Listens
from data.training_graph import EDGE_ATTRIBUTES
from evaluation.audit.attributes import check_train_attributes
from evaluation.audit.derived_edges import check_derived_edges, unexplained_edge_types
from evaluation.audit.edges import (
    check_held_out_attributes,
    check_lists,
    check_mask_form,
    check_masks,
    check_messages,
    check_new_users,
    check_pairs_once,
    check_unmasked,
    edge_attributes,
    is_temporal,
    pair_digests,
)
from evaluation.audit.node_counts import check_node_counts, node_origins
from evaluation.audit.pairs import GraphPairs
from evaluation.audit.planting import Probe, run_canary
from evaluation.audit.result import Audit, Canary, Check
from evaluation.audit.seen_pairs import check_warm_start, unknown_of
from evaluation.parts import split_identity

WITHOUT_MASKS = (
    "Nothing is held out in this graph, so nothing can leak inside it, and nothing was measured either.",
    "Numbers of a model trained on it are in-sample: they repeat what the model has read.",
    "Which pairs a later split will hold out is not known here; weights, counts and ages on it come from all listens, "
    "so a split has to compute them anew from train rows (data.training_graph.split_graph with the listens).",
)
CATALOGUE = "Songs, artists and who made what are taken as known beforehand, from whatever part of the log they come."
IN_SAMPLE = (
    "The trainer trains on everything, held-out pairs included: its numbers are in-sample, and no canary was run."
)
NO_TRAINER = "What a trainer reads was not tried: no trainer was named, so no canary was run."
NOTHING_TO_PLANT = "No canary was run: each user of the sample listens to every song, so no pair can be planted."
SAMPLED = "The canary trains for two epochs on a sample; what a trainer does later, or on a rare user, it does not see."
NO_LISTENS = (
    "Whether weights, plays and times of train edges count held-out rows is not known without the listens table; "
    "give it with --listens."
)


def audit_graph(
    graph: HeteroData,
    listens: pa.Table | None = None,
    probe: Probe | None = None,
    warmed_from: Path | None = None,
    seed: int = 0,
) -> Audit:
    """Look for every kind of leak that we know.

    Args:
        graph: a training graph, or a graph without masks, of which little can be said.
        listens: the rows (user, song, day) that the graph was built from; with them every attribute is computed anew.
        probe: trains for the canary; see ``evaluation.audit.planting``.
        warmed_from: the bundle of a model whose weights the training starts from.
        seed: of the canary.

    Raises:
        InputError: the listens are of another graph, or the bundle cannot be read.
    """
    form = check_mask_form(graph)
    if not form.passed:
        return Audit.of((form,))
    if not has_masks(graph):
        return Audit.of((form,), cannot_say=WITHOUT_MASKS)
    rows = None if listens is None else Listens.from_table(listens)
    pairs, seen = GraphPairs(graph), message_graph(graph)
    checks = [form, *_checks(graph, seen, pairs, rows)]
    unknown = [*_unknown(graph, pairs, rows)]
    if warmed_from:
        checks.append(check_warm_start(graph, warmed_from))
        unknown.extend(unknown_of(warmed_from))
    canary, silence = _asked_canary(graph, probe, seed)
    digests = {"split": split_identity(graph), **pair_digests(seen, pairs)}
    return Audit.of(tuple(checks), canary, (*unknown, silence), digests)


def _asked_canary(graph: HeteroData, probe: Probe | None, seed: int) -> tuple[Canary | None, str]:
    """The canary, if one can be run, and what its silence does not mean."""
    if probe is None:
        return None, NO_TRAINER
    if probe.trains_on_everything:
        return None, IN_SAMPLE
    canary = run_canary(graph, probe, seed)
    return canary, SAMPLED if canary else NOTHING_TO_PLANT


def read_listens(folder: Path) -> pa.Table:
    """The listens table of the ingest stage's folder; raises InputError where there is none."""
    try:
        return pq.read_table(folder / "listens.parquet")
    except (OSError, pa.ArrowInvalid):
        raise InputError(f"{folder} has no readable listens.parquet; give the folder of the ingest stage.") from None


def _checks(graph: HeteroData, seen: HeteroData, pairs: GraphPairs, rows: Listens | None) -> Iterator[Check]:
    yield check_masks(pairs)
    yield check_unmasked(pairs)
    yield check_pairs_once(pairs)
    yield check_messages(seen, pairs)
    yield check_held_out_attributes(graph, pairs)
    if rows is not None:
        yield check_train_attributes(graph, pairs, rows)
    yield check_node_counts(graph, pairs, rows)
    yield check_derived_edges(graph, pairs)
    yield check_lists(graph, pairs)
    yield check_new_users(pairs)


def _unknown(graph: HeteroData, pairs: GraphPairs, rows: Listens | None) -> Iterator[str]:
    yield CATALOGUE
    if rows is None:
        yield NO_LISTENS
    if is_temporal(pairs) and (gap := int((~pairs.parts.any(0)).sum()) - len(pairs.new_users)):
        yield f"Whether pairs in no mask were left out by the gap before the held-out days: {gap:,} are taken to be."
    own = {name for name, _ in edge_attributes(graph[LISTENS], len(pairs.keys))} - set(EDGE_ATTRIBUTES)
    unknown = [name for name, origin in node_origins(graph, pairs, rows).items() if origin == "unknown"]
    for what, names in (("edge", sorted(own)), ("node", unknown)):
        if names:
            yield f"Where these {what} attributes come from is not known: {', '.join(names)}."
    if types := unexplained_edge_types(graph, pairs):
        yield f"Where these edges come from is not known: {', '.join(types)}."
