"""A trained model on disk: written so that the same run gives the same bytes, read by those who only score."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from models.base import Embeddings, RecommenderModel
from trainers.results import EpochRecord

WEIGHTS, EMBEDDINGS, CONFIG, HISTORY = "model.safetensors", "embeddings.safetensors", "config.json", "history.json"


def write_model(
    folder: Path,
    model: RecommenderModel,
    embeddings: Embeddings,
    config: Mapping[str, Any],
    history: list[EpochRecord],
) -> Path:
    """Write weights, embeddings, configs and history into ``folder``; see ``BaseTrainer.save_model``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, folder / WEIGHTS)
    # copies: both are views of one tensor, which safetensors refuses
    save_file({name: value.clone() for name, value in embeddings._asdict().items()}, folder / EMBEDDINGS)
    _write_json(folder / CONFIG, config)
    _write_json(folder / HISTORY, history)
    return folder


def load_embeddings(folder: Path) -> Embeddings:
    """User (U, D) and song (S, D) vectors of a saved model, whose dot product is the score."""
    vectors = load_file(folder / EMBEDDINGS)
    return Embeddings(vectors["user"], vectors["song"])


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
