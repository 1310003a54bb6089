"""Keys of ``adversarial``."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from trainers.advanced import AdvancedConfig


class AdversarialConfig(AdvancedConfig):
    """Keys of ``adversarial``: two abilities, each of which can be switched off."""

    adversarial_weight: NonNegativeFloat = 0.0
    """Weight of the loss at perturbed vectors; 0 switches adversarial ranking off."""

    adversarial_start: NonNegativeInt = 15
    """Epochs of ordinary training before that loss is added; the best epoch is one of those after, and patience is
    counted from there."""

    epsilon: PositiveFloat = 1.0
    """How far vectors are moved: each with bpr, in the root mean square with softmax. Under cosine similarity they have
    length 1, and are scaled back to it."""

    max_distrusted: float = Field(0.02, ge=0, lt=0.5)
    """Greatest share of the users that may be distrusted, however suspicious more of them are; 0 distrusts nobody."""

    suspicion: PositiveFloat = 5.0
    """Standard deviations above the usual from which on the agreement among a song's listeners is suspicious."""
