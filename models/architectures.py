"""The models by name; nothing here imports torch, so that a cached run can name its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data.code.lookup import class_path

MODELS = {
    "gat": "models.gat:GAT",
    "lightgcn": "models.lightgcn:LightGCN",
    "mf": "models.mf:MF",
}
ENTRY_POINTS = "songgraph.models"
"""Group of entry points in which an installed package can give its own model a short name."""

DEFAULT_ARCHITECTURE = "gat"


def architecture_of(model_config: Mapping[str, Any]) -> str:
    """Return the architecture that a config names, or the default one."""
    return str(model_config.get("architecture", DEFAULT_ARCHITECTURE))


def model_path(model_config: Mapping[str, Any]) -> str:
    """Return ``module:Class`` of the architecture that a config names, without importing it."""
    return class_path("architecture", architecture_of(model_config), MODELS, ENTRY_POINTS)
