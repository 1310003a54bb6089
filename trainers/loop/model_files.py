"""Writes a trained model, the same bytes for the same run, and reads what scoring needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from evaluation.ranking import Score
from evaluation.vector_scores import VectorScores
from models.base import Embeddings, RecommenderModel
from models.item_paths.local_scorer import LocalScorer
from trainers.loop.training_results import EpochRecord

WEIGHTS, EMBEDDINGS, CONFIG, HISTORY = "model.safetensors", "embeddings.safetensors", "config.json", "history.json"
LOCAL = "local.safetensors"
"""The local channel, if the model has one."""
HEADS = "heads.safetensors"
"""The heads of a model that was trained by ``multitask``."""


def write_model(
    folder: Path,
    model: RecommenderModel,
    embeddings: Embeddings,
    local: LocalScorer | None,
    config: Mapping[str, Any],
    history: list[EpochRecord],
) -> Path:
    """Write a model and all that its score needs into ``folder``; see ``BaseTrainer.save_model``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (LOCAL, HEADS):
        (folder / name).unlink(missing_ok=True)  # a file of another model would count as this one's
    if local is not None:
        local.save(folder / LOCAL)
    save_file({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, folder / WEIGHTS)
    # copies: both are views of one tensor, which safetensors refuses
    save_file({name: value.clone() for name, value in embeddings._asdict().items()}, folder / EMBEDDINGS)
    _write_json(folder / CONFIG, config)
    _write_json(folder / HISTORY, history)
    return folder


def load_embeddings(folder: Path) -> Embeddings:
    """Return user (U, D) and song (S, D) vectors of a saved model; their dot product is the similarity."""
    vectors = load_file(folder / EMBEDDINGS)
    return Embeddings(vectors["user"], vectors["song"])


def load_score(folder: Path) -> Score:
    """Return the score function of a saved model: the similarity, or what its local channel makes of it."""
    local = LocalScorer.load(folder / LOCAL) if (folder / LOCAL).is_file() else None
    return VectorScores(*load_embeddings(folder), local)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
