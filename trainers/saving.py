"""Writes a trained model so that the same run gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from models.base import Embeddings, RecommenderModel
from trainers.results import EpochRecord


def write_model(
    folder: Path,
    model: RecommenderModel,
    embeddings: Embeddings,
    config: Mapping[str, Any],
    history: list[EpochRecord],
) -> Path:
    """Write weights, embeddings, configs and history into ``folder``; see ``BaseTrainer.save_model``."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    vectors = {"user": embeddings.user.contiguous(), "song": embeddings.song.contiguous()}
    save_file({name: value.clone() for name, value in vectors.items()}, folder / "embeddings.safetensors")
    _write_json(folder / "config.json", config)
    _write_json(folder / "history.json", history)
    return folder


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
