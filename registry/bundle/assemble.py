"""Puts everything that belongs to one model version into one folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
from safetensors import safe_open
from torch_geometric.data import HeteroData

from data.errors import InputError
from evaluation.record import EvaluationRecord
from models.item_paths.local_scorer import LocalScorer
from registry.bundle.manifest import (
    EMBEDDINGS,
    HEADS,
    LOCAL,
    RESULTS,
    TWIN,
    TWIN_LOCAL,
    TWIN_WEIGHTS,
    WEIGHTS,
    Facts,
    Manifest,
)
from registry.bundle.seen_tables import seen_table, song_artist_table

MODEL_FILES = (WEIGHTS, EMBEDDINGS, "config.json", "history.json")
VOCABULARIES = ("users.parquet", "songs.parquet", "artists.parquet")
EVALUATION_FILES = ("metrics.json", "per_user.parquet", "lists.parquet")


def assemble_bundle(
    folder: Path,
    *,
    model: Path,
    vocabularies: Path,
    evaluation: Path,
    graph: HeteroData,
    source: Literal["log", "synthetic"],
    split: Mapping[str, Any],
    warmed_from: Sequence[Mapping[str, Any]] = (),
    lineage: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    profile: Path | None = None,
    audit: Path | None = None,
    seeds: Path | None = None,
    refit: Path | None = None,
) -> Manifest:
    """Copy a model, its vocabularies and its numbers into a bundle and sign it with one digest.

    The same inputs give the same bytes and the same digest. The manifest is written last, so a folder without one is
    not a bundle.

    Args:
        folder: where to write; created if needed, otherwise empty.
        model: folder that the train stage saved; it is what was evaluated. ``local.safetensors``,
            ``heads.safetensors`` and ``results.json`` are taken where they are.
        vocabularies: folder with users.parquet, songs.parquet and artists.parquet.
        evaluation: folder that the evaluate stage wrote.
        graph: the training graph (or the whole graph, for a trainer without a split), for who listened to what.
        source: "synthetic" for a made-up log; such a bundle never replaces one that was made from a real log.
        split: the split's config as plain JSON values, with the days that were decided: what the model has seen.
        warmed_from: the same of every model whose weights this one started from.
        lineage: digests by name, from log to model.
        versions: versions of libraries by name.
        profile, audit, seeds: files to copy as profile.json, audit.json and seeds.json. Without the first two a version
            is never promoted.
        refit: folder of the same configuration trained on all listens. Its weights are published, and ``model``, its
            twin, stays beside them with its weights and all that its score needs: only the twin can be measured, and
            only from the twin can a later model start that is to be measured.

    Raises:
        InputError: a file is missing, or the parts do not fit each other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for origin, names in ((refit or model, MODEL_FILES), (vocabularies, VOCABULARIES), (evaluation, EVALUATION_FILES)):
        for name in names:
            _copy(origin / name, folder / name)
    _copy_optional(folder, {"profile.json": profile, "audit.json": audit, "seeds.json": seeds})
    _copy_optional(folder, {name: _optional(refit or model, name) for name in (LOCAL, HEADS)})
    _copy_optional(folder, {RESULTS: _optional(model, RESULTS)})
    if refit:
        twin = {TWIN: model / EMBEDDINGS, TWIN_WEIGHTS: model / WEIGHTS, TWIN_LOCAL: _optional(model, LOCAL)}
        _copy_optional(folder, twin)
    pq.write_table(seen_table(graph), folder / "seen.parquet")
    pq.write_table(song_artist_table(graph), folder / "song_artists.parquet")
    _check_counts(folder, graph)
    facts = Facts(
        source=source,
        seen_splits=(dict(split), *map(dict, warmed_from)),
        lineage=dict(lineage or {}),
        versions=dict(versions or {}),
        refit=refit is not None,
        **_told_by_files(folder),
    )
    manifest = Manifest.of(folder, facts)
    manifest.write(folder)
    return manifest


def _told_by_files(folder: Path) -> dict[str, Any]:
    record = EvaluationRecord.read(folder / "metrics.json")
    trainer = str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["trainer"])
    return {"trainer": trainer, "split_digest": record.split_digest, "in_sample": record.in_sample}


def _optional(model: Path, name: str) -> Path | None:
    return model / name if (model / name).is_file() else None


def _copy_optional(folder: Path, files: Mapping[str, Path | None]) -> None:
    for name, origin in files.items():
        if origin is not None:
            _copy(origin, folder / name)


def _copy(origin: Path, target: Path) -> None:
    try:
        shutil.copyfile(origin, target)
    except FileNotFoundError:
        raise InputError(f"The bundle needs {origin}, which does not exist; run the stage that writes it.") from None


def _check_counts(folder: Path, graph: HeteroData) -> None:
    """Refuse vocabularies, embeddings or a local channel of another graph."""
    for name in (name for name in SCORE_FILES if (folder / name).is_file()):
        says, counts = SCORE_FILES[name]
        for kind, rows in counts(folder / name).items():
            named, nodes = pq.read_metadata(folder / f"{kind}s.parquet").num_rows, int(graph[kind].num_nodes)
            if not rows == named == nodes:
                raise InputError(
                    f"The parts of the bundle do not belong together: the graph has {nodes} {kind}s, the vocabulary "
                    f"names {named} and {says} {rows}; take all from one run."
                )


def _embedded(path: Path) -> dict[str, int]:
    """How many users and songs a file of embeddings has."""
    with safe_open(path, framework="np") as vectors:
        return {kind: vectors.get_slice(kind).get_shape()[0] for kind in ("user", "song")}


def _connected(path: Path) -> dict[str, int]:
    """How many users and songs a local channel has, if it is sound."""
    local = LocalScorer.load(path)
    return {"user": local.num_users, "song": local.num_songs}


_EMBEDDED, _CONNECTED = ("the model embeds", _embedded), ("its local channel knows", _connected)
SCORE_FILES = {EMBEDDINGS: _EMBEDDED, TWIN: _EMBEDDED, LOCAL: _CONNECTED, TWIN_LOCAL: _CONNECTED}
"""Each file that scores are computed from, with a way to count the users and songs in it."""
