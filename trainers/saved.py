"""Reads what ``BaseTrainer.save_model`` wrote, for those who score with a model and do not train it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from models.base import Embeddings


def load_embeddings(folder: Path) -> Embeddings:
    """User (U, D) and song (S, D) vectors of a saved model, whose dot product is the score."""
    vectors = load_file(folder / "embeddings.safetensors")
    return Embeddings(vectors["user"], vectors["song"])


def load_config(folder: Path) -> dict[str, Any]:
    """``trainer``, ``model_config`` and ``training_config`` of a saved model."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config
