"""Assembles a bundle: everything that belongs to one version of a model, in one folder."""

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
    EVALUATED_EMBEDDINGS,
    EVALUATED_LOCAL,
    EVALUATED_WEIGHTS,
    HEADS,
    LOCAL,
    RESULTS,
    WEIGHTS,
    Manifest,
    ModelFacts,
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
        model: folder of the evaluated model, as the train stage saved it. ``local.safetensors``,
            ``heads.safetensors`` and ``results.json`` are copied if it has them.
        vocabularies: folder with users.parquet, songs.parquet and artists.parquet.
        evaluation: folder that the evaluate stage wrote.
        graph: the training graph, or the whole graph for a trainer without a split: who listened to what.
        source: "synthetic" for a made-up log; such a bundle never replaces one of a real log.
        split: the split's config as plain JSON values, with the days that it chose; it tells what the model has seen.
        warmed_from: the splits of the models whose weights this one started from.
        lineage: digests by name, from log to model.
        versions: versions of libraries by name.
        profile, audit, seeds: files to copy as profile.json, audit.json and seeds.json. The gate never promotes a
            version without the first two.
        refit: folder of the same configuration trained on all listens. It is published; the weights and score files of
            ``model`` are kept beside it, for comparisons and for models that start from this one.

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
        _copy(model / EMBEDDINGS, folder / EVALUATED_EMBEDDINGS)
        _copy(model / WEIGHTS, folder / EVALUATED_WEIGHTS)
        _copy_optional(folder, {EVALUATED_LOCAL: _optional(model, LOCAL)})
    pq.write_table(seen_table(graph), folder / "seen.parquet")
    pq.write_table(song_artist_table(graph), folder / "song_artists.parquet")
    _check_counts(folder, graph)
    record = EvaluationRecord.read(folder / "metrics.json")
    facts = ModelFacts(
        source=source,
        trainer=str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["trainer"]),
        split_digest=record.split_digest,
        in_sample=record.in_sample,
        seen_splits=(dict(split), *map(dict, warmed_from)),
        lineage=dict(lineage or {}),
        versions=dict(versions or {}),
        refit=refit is not None,
    )
    manifest = Manifest.of(folder, facts)
    manifest.write(folder)
    return manifest


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
    counted = [("the model embeds", _embedded(folder / name)) for name in (EMBEDDINGS, EVALUATED_EMBEDDINGS)]
    counted += [("its local channel knows", _connected(folder / name)) for name in (LOCAL, EVALUATED_LOCAL)]
    for who_knows, counts in counted:
        for kind, rows in counts.items():
            named, nodes = pq.read_metadata(folder / f"{kind}s.parquet").num_rows, int(graph[kind].num_nodes)
            if not rows == named == nodes:
                raise InputError(
                    f"The parts of the bundle do not belong together: the graph has {nodes} {kind}s, the vocabulary "
                    f"names {named} and {who_knows} {rows}; take all from one run."
                )


def _embedded(path: Path) -> dict[str, int]:
    """Count the users and songs in a file of embeddings; empty if there is no such file."""
    if not path.is_file():
        return {}
    with safe_open(path, framework="np") as vectors:
        return {kind: vectors.get_slice(kind).get_shape()[0] for kind in ("user", "song")}


def _connected(path: Path) -> dict[str, int]:
    """Count the users and songs of a local channel, which has to be sound; empty if there is none."""
    if not path.is_file():
        return {}
    local = LocalScorer.load(path)
    return {"user": local.num_users, "song": local.num_songs}
