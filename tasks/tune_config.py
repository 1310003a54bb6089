"""Keys of the table ``[tune]``: how far a search of hyper-parameters goes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from data.config import Config


class TuneConfig(Config):
    """What ``flows.tune`` does with a config; a training run reads none of it."""

    trials: PositiveInt = 30
    """Trials in all, those of an earlier start of the same search counted; the config as it is takes one of them."""
    num_epochs: PositiveInt | None = None
    """Epochs at most of a trial; none means the run's own ``num_epochs``."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """What ends a trial early that is behind the others on validation."""
    search: tuple[str, ...] = ()
    """Keys to search; empty means all that say where, of the chosen trainer and architecture."""
    space: dict[str, Any] = Field(default_factory=dict)
    """Key to a list of choices or to a range, in place of what the key's config class says."""
