"""The gate's configuration, as a run's config holds it, and its decision, as a version keeps it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import AliasChoices, Field, model_validator

from data.config import Config
from evaluation.statistics.intervals import Interval

Outcome = Literal["promote", "hold", "reject"]


class GateConfig(Config):
    """When a new model takes the champion's place; the rule is in ``registry.gate.decide``."""

    margin: float = Field(0.02, gt=0, lt=1)
    """A model counts as not worse when less than this share of the champion's value can be lost."""
    detectable_loss: float = Field(0.05, gt=0, lt=1)
    """Share of the champion's value: a loss of so much has to be found, which decides how many users are enough."""
    power: float = Field(0.9, gt=0.5, lt=1)
    """Probability with which such a loss has to be found."""
    guardrail_margin: float = Field(0.1, gt=0, lt=1)
    """Share of the champion's coverage, tail recall, cold users' recall or diversity that may be lost."""
    max_volume_loss: float = Field(0.2, ge=0, le=1)
    """Largest share by which plays, pairs or users may lie below the median of the last versions."""
    max_volume_gain: float = Field(1.0, ge=0)
    """Largest share by which they may lie above it."""
    max_rejected_gain: float = Field(0.005, ge=0, le=1)
    """The share of rejected rows may lie so far above the median of the last versions."""
    max_new_songs: float = Field(0.3, ge=0, le=1)
    """Largest share of the songs that may be unknown to the champion."""
    max_lost_songs: float = Field(0.1, ge=0, le=1)
    """Largest share of the champion's songs that may be gone."""

    @model_validator(mode="after")
    def _loss_is_beyond_margin(self) -> Self:
        if self.detectable_loss <= self.margin:
            raise ValueError(
                f"detectable_loss {self.detectable_loss} has to be above margin {self.margin}; "
                "a loss within the margin is never looked for"
            )
        return self


class Guardrail(Config):
    """A quantity that must not fall while the watched metric rises."""

    name: str
    """coverage, tail recall, cold users' recall or artist diversity."""
    users: int
    """Users it was measured on; with too few it is skipped."""
    challenger: float | None = None
    """The challenger's value."""
    champion: float | None = None
    """The champion's value."""
    difference: Interval | None = None
    """Challenger minus champion, with bounds at the level that is corrected for the number of guardrails."""
    p: float | None = None
    """Probability of a loss as great as the measured one, if just the margin was lost; corrected after Holm."""
    passed: bool = True
    """False if more than the margin is clearly lost."""
    says: str = ""
    """The result in a sentence."""


class DataCheck(Config):
    """One check of the challenger's log against the logs of the last versions."""

    name: str
    """plays, pairs, users, rejects, new songs, lost songs, or volume without an earlier log."""
    passed: bool
    """True within the limit."""
    says: str
    """The value and what is allowed, in a sentence."""


class Decision(Config):
    """The decision about a version, with its numbers and reasons; it is stored with the version for ever."""

    outcome: Outcome
    """promote: it becomes champion; reject: it is worse; hold: neither could be shown, or something forbids it."""
    reason: str
    """The first reason, in a sentence that starts with Promoted, Held or Rejected."""
    reasons: tuple[str, ...] = ()
    """Everything that was found, with numbers; what decided comes first."""
    metric: str
    """The metric that decided."""
    users: int
    """Users on whom the model was measured."""
    better: bool = False
    """True if it is better than the champion, above the noise between seeds; else a promoted model is not worse."""
    against_popularity: Interval | None = None
    """Model minus popularity, paired by user."""
    champion: int | None = None
    """The champion's version at the time, if there was a champion."""
    compared_users: int | None = None
    """Users on whom the two were compared; a user who is unknown to one of them counts as its miss."""
    challenger_value: float | None = None
    """The model's metric on those users."""
    champion_value: float | None = None
    """The champion's metric on those users."""
    against_champion: Interval | None = None
    """Model minus champion on those users, paired; its ends are the one-sided 2.5 % bounds."""
    margin: float | None = None
    """The loss that counts as not worse, in the metric's unit."""
    common_users: int | None = None
    """Users that both know."""
    on_common: Interval | None = None
    """Model minus champion on users and songs that both know."""
    needed_users: int | None = None
    """Users that the gate's power calculation asks for."""
    noise: float | None = None
    """The largest difference that seeds alone explain; none if it was not measured."""
    guardrails: tuple[Guardrail, ...] = ()
    """Coverage, tail, cold and diversity."""
    data_checks: tuple[DataCheck, ...] = ()
    """Volume, rejects, new and lost songs."""
    evaluated_models: bool = Field(False, validation_alias=AliasChoices("evaluated_models", "twins"))
    """True if a refitted model was compared by its evaluated model, which was trained without the held-out listens.

    Decisions of earlier releases call this ``twins``.
    """
    forced: str | None = None
    """A person's reason for promoting it against or without the gate."""
    compared: dict[str, str] = Field(default_factory=dict)
    """Digests of the bundles that were compared, by role."""
