"""Run the whole audit of a training graph, and of a trainer on it."""

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
from evaluation.audit.seen_pairs import check_warm_start, warm_start_unknowns
from evaluation.parts import split_identity

WITHOUT_MASKS = (
    "Nothing is held out in this graph, so nothing can leak inside it, and nothing was measured either.",
    "Numbers of a model trained on it are in-sample: the model has seen the listens that they count.",
    "It is not known which pairs a later split will hold out. Weights, counts and ages in this graph come from all "
    "listens, so a split must compute them again from train rows (data.training_graph.split_graph with the listens).",
)
CATALOGUE = (
    "Songs, artists and their relation count as known in advance, whether they come from train or held-out listens."
)
IN_SAMPLE = (
    "The trainer trains on everything, held-out pairs included: its numbers are in-sample, and no canary was run."
)
NO_TRAINER = "It is not known what a trainer reads: no trainer was named, so no canary was run."
NOTHING_TO_PLANT = "No canary was run: each user of the sample listens to every song, so no pair can be planted."
SAMPLED = (
    "The canary trains for two epochs on a sample: it does not see what a trainer does in later epochs or for rare "
    "users."
)
NO_LISTENS = (
    "Without the listens table it is not known if weights, plays and times of train edges count held-out rows; give it "
    "with --listens."
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
        graph: a training graph. A graph without masks is allowed, but the audit can say little about it.
        listens: the rows (user, song, day) that the graph was built from; with them every attribute is computed again.
        probe: trains for the canary; see ``evaluation.audit.planting``. None runs no canary.
        warmed_from: the bundle of the model that the training starts from.
        seed: seed of the canary.

    Raises:
        InputError: the listens belong to another graph, or the bundle cannot be read.
    """
    form = check_mask_form(graph)
    if not form.passed:
        return Audit.of((form,))
    if not has_masks(graph):
        return Audit.of((form,), cannot_say=WITHOUT_MASKS)
    rows = None if listens is None else Listens.from_table(listens)
    pairs, seen = GraphPairs(graph), message_graph(graph)
    checks = [form, *_checks(graph, seen, pairs, rows)]
    unknowns = [*_unknowns(graph, pairs, rows)]
    if warmed_from:
        checks.append(check_warm_start(graph, warmed_from))
        unknowns.extend(warm_start_unknowns(warmed_from))
    canary, caveat = _run_canary_if_possible(graph, probe, seed)
    digests = {"split": split_identity(graph), **pair_digests(seen, pairs)}
    return Audit.of(tuple(checks), canary, (*unknowns, caveat), digests)


def _run_canary_if_possible(graph: HeteroData, probe: Probe | None, seed: int) -> tuple[Canary | None, str]:
    """Return the canary, if it can be run, and a sentence about its limits."""
    if probe is None:
        return None, NO_TRAINER
    if probe.trains_on_everything:
        return None, IN_SAMPLE
    canary = run_canary(graph, probe, seed)
    return canary, SAMPLED if canary else NOTHING_TO_PLANT


def read_listens(folder: Path) -> pa.Table:
    """Read the listens table from the ingest stage's folder; raises InputError if there is none."""
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


def _unknowns(graph: HeteroData, pairs: GraphPairs, rows: Listens | None) -> Iterator[str]:
    """Yield a sentence for each thing that the audit cannot know."""
    yield CATALOGUE
    if rows is None:
        yield NO_LISTENS
    if is_temporal(pairs) and (gap := int((~pairs.parts.any(0)).sum()) - len(pairs.new_users)):
        yield f"{gap:,} pairs are in no mask. The audit assumes that the gap before the held-out days left them out."
    extra = {name for name, _ in edge_attributes(graph[LISTENS], len(pairs.keys))} - set(EDGE_ATTRIBUTES)
    unknown = [name for name, origin in node_origins(graph, pairs, rows).items() if origin == "unknown"]
    for kind, names in (("edge", sorted(extra)), ("node", unknown)):
        if names:
            yield f"The origin of these {kind} attributes is not known: {', '.join(names)}."
    if types := unexplained_edge_types(graph, pairs):
        yield f"The origin of these edges is not known: {', '.join(types)}."
