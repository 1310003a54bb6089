"""Builds a model by name; only the chosen model is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from data.code.lookup import find_class
from models.architectures import ENTRY_POINTS, MODELS, architecture_of
from models.base import ModelConfig, RecommenderModel


def create_model(model_config: Mapping[str, Any], seed: int = 0) -> RecommenderModel:
    """Build a model with seeded weights, on the CPU.

    Args:
        model_config: keys of the architecture's ``Config``; ``architecture`` names it (default ``gat``).
        seed: the same seed gives the same weights; torch's global random state is not changed.

    Raises:
        InputError: for an unknown architecture, an unknown key or a value that is not allowed.
    """
    config = parse_model_config(model_config)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _model_class(model_config)(config)


def parse_model_config(model_config: Mapping[str, Any]) -> ModelConfig:
    """Validate a ``model_config`` without building the model; raises InputError."""
    return _model_class(model_config).Config.parse(model_config, "model_config")


def _model_class(model_config: Mapping[str, Any]) -> type[RecommenderModel]:
    name = architecture_of(model_config)
    found: type[RecommenderModel] = find_class("architecture", name, MODELS, RecommenderModel, ENTRY_POINTS)
    return found
