"""Keys of the table ``[tune]``: how a search of hyper-parameters is done."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from data.config import Config


class TuneConfig(Config):
    """Says how ``flows.tune`` searches; a training run does not read it."""

    trials: PositiveInt = 30
    """Number of trials. Finished ones of an earlier start count, and the config as it is takes one."""
    num_epochs: PositiveInt | None = None
    """Most epochs of a trial; none means the run's own ``num_epochs``."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """Ends a trial early if it is worse on validation than the others."""
    search: tuple[str, ...] = ()
    """Keys to search; empty means all keys of the chosen trainer and architecture that declare values."""
    space: dict[str, Any] = Field(default_factory=dict)
    """Key to a list of choices or to a range; replaces the values that the key's config class declares."""
