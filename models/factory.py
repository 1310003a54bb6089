"""Builds a model by name; only the chosen one is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from data.code.lookup import class_path, find_class

if TYPE_CHECKING:
    from models.base import ModelConfig, RecommenderModel

MODELS = {
    "gat": "models.gat:GAT",
    "lightgcn": "models.lightgcn:LightGCN",
    "mf": "models.mf:MF",
}
ENTRY_POINTS = "songgraph.models"
"""Group of entry points by which an installed package gives a model of its own a short name."""

DEFAULT_ARCHITECTURE = "gat"


def model_path(model_config: Mapping[str, Any]) -> str:
    """``module:Class`` of the architecture that a config names, without importing it."""
    return class_path("architecture", _architecture(model_config), MODELS, ENTRY_POINTS)


def create_model(model_config: Mapping[str, Any], seed: int = 0) -> RecommenderModel:
    """A model with seeded weights, on the CPU.

    Args:
        model_config: keys of the architecture's ``Config``; ``architecture`` names it (default ``gat``).
        seed: the same seed gives the same weights; the caller's random state is left as it was.

    Raises:
        InputError: for an unknown architecture, an unknown key or a value that is not allowed.
    """
    import torch

    config = parse_model_config(model_config)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _model_class(model_config)(config)


def parse_model_config(model_config: Mapping[str, Any]) -> ModelConfig:
    """Validate a ``model_config`` without building the model; raises InputError."""
    return _model_class(model_config).Config.parse(model_config, "model_config")


def _model_class(model_config: Mapping[str, Any]) -> type[RecommenderModel]:
    from models.base import RecommenderModel

    name = _architecture(model_config)
    found: type[RecommenderModel] = find_class("architecture", name, MODELS, RecommenderModel, ENTRY_POINTS)
    return found


def _architecture(model_config: Mapping[str, Any]) -> str:
    return str(model_config.get("architecture", DEFAULT_ARCHITECTURE))
