"""Configs that train the small random graph of ``tests/conftest.py`` in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch_geometric.data import HeteroData

from data.errors import InputError
from data.graph import node_counts
from trainers.base import BaseTrainer
from trainers.factory import create_trainer
from trainers.federated_process import flower_python


@pytest.fixture
def model_config(tiny_graph: HeteroData) -> dict[str, Any]:
    return {**node_counts(tiny_graph), "embedding_dim": 16, "heads": 2}


@pytest.fixture
def training_config() -> dict[str, Any]:
    return {"batch_size": 64, "num_eval_users": 20, "eval_k": 5, "device": "cpu"}


@pytest.fixture
def make_trainer(model_config, training_config, tmp_path) -> Callable[..., BaseTrainer]:
    """``make_trainer("advanced", output_dir=..., patience=3)``: further keys go into ``training_config``."""

    def make(trainer: str = "advanced", output_dir: Path = tmp_path / "out", **training: Any) -> BaseTrainer:
        return create_trainer(trainer, model_config, {**training_config, **training}, output_dir)

    return make


@pytest.fixture(scope="session")
def flower() -> None:
    """Skips tests that need Flower's environment where there is none."""
    try:
        flower_python()
    except InputError as error:
        pytest.skip(str(error))
