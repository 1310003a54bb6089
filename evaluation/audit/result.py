"""The result of an audit, as in ``audit.json``. This module does not import torch."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field

from data.config import Config, JsonRecord
from data.errors import InputError


class Check(Config):
    """The check for one kind of leak."""

    name: str
    """Name of the check, a word or two."""
    passed: bool
    """True if no leak was found."""
    found: int
    """How many edges, values or pairs leak."""
    says: str
    """The finding in a sentence."""


class Canary(Config):
    """The outcome of the trainings with planted pairs."""

    passed: bool
    """True if held-out pairs changed nothing, and the same pairs in train changed everything."""
    says: str
    """The outcome in a sentence."""
    seed: int
    """Seed of the sample and of the planted pairs."""
    users: int
    """Users of the sample."""
    songs: int
    """Songs of the sample."""
    pairs: int
    """User-song pairs of the sample."""
    planted: int
    """Planted pairs, between users and songs of the sample without an edge."""
    same_when_held_out: dict[str, bool]
    """Each thing that the training reads or makes; True if it stays the same to the bit with the pairs held out."""
    changed_in_train: dict[str, bool]
    """The control: True if it changes with the same pairs in train."""
    leaking_parts: tuple[str, ...] = ()
    """Parts whose planted pairs changed something: val, test, none (held out, in no mask)."""


class Audit(JsonRecord):
    """The audit of a training graph, and of a trainer on it: all checks, and what remains unknown."""

    UNREADABLE: ClassVar[str] = "is not a readable audit; run `python -m evaluation.audit` again"

    passed: bool
    """True if training may begin."""
    checks: tuple[Check, ...]
    """The checks of the graph."""
    canary: Canary | None = None
    """The trainings with planted pairs; None if no trainer was named or nothing is held out."""
    cannot_say: tuple[str, ...] = ()
    """Sentences about what the audit cannot know."""
    digests: dict[str, str] = Field(default_factory=dict)
    """Name to SHA-256 of the compared pairs."""

    @classmethod
    def of(
        cls,
        checks: tuple[Check, ...],
        canary: Canary | None = None,
        cannot_say: tuple[str, ...] = (),
        digests: dict[str, str] | None = None,
    ) -> Self:
        """Create an audit. It passes if all checks and the canary pass."""
        passed = all(check.passed for check in checks) and (canary is None or canary.passed)
        return cls(passed=passed, checks=checks, canary=canary, cannot_say=cannot_say, digests=digests or {})

    def with_unknowns(self, cannot_say: tuple[str, ...]) -> Self:
        """Return the audit with more sentences about what is not known."""
        return self.model_copy(update={"cannot_say": (*self.cannot_say, *cannot_say)})

    def refusal(self) -> str:
        """Return the text of an error with every leak; empty if the audit passed."""
        leaks = [check.says for check in self.checks if not check.passed]
        leaks += [self.canary.says] if self.canary and not self.canary.passed else []
        return f"The audit refuses to train: {' '.join(leaks)}" if leaks else ""

    def require(self) -> None:
        """Raise InputError with every leak unless the audit passed."""
        if not self.passed:
            raise InputError(self.refusal())


def check(name: str, found: int, clean: str, leak: str) -> Check:
    """Create a check. It passes if ``found`` is 0; it says ``clean``, or ``leak`` with ``{found}`` filled in."""
    says = leak.replace("{found}", f"{found:,}") if found else clean
    return Check(name=name, passed=found == 0, found=found, says=says)
