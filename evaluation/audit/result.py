"""What an audit found, as it is kept in ``audit.json``. Nothing here imports torch."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field

from data.config import Config, JsonRecord
from data.errors import InputError


class Check(Config):
    """One kind of leak that was looked for."""

    name: str
    """What was looked at, in a word or two."""
    passed: bool
    """Whether nothing was found."""
    found: int
    """How many edges, values or pairs leak; 0 where nothing does."""
    says: str
    """What was found, in a sentence."""


class Canary(Config):
    """What became of a training into which held-out pairs were planted."""

    passed: bool
    """Whether held-out pairs changed nothing, and the same pairs in train changed everything."""
    says: str
    """The outcome in a sentence."""
    seed: int
    """Seed of the sample and of what was planted."""
    users: int
    """Users of the sample that was trained on."""
    songs: int
    """Songs of the sample."""
    pairs: int
    """User-song pairs of the sample."""
    planted: int
    """Pairs that were planted, between users and songs of the sample that had none."""
    same_when_held_out: dict[str, bool]
    """What the training read or made, and whether it stayed the same to the bit with the pairs held out."""
    changed_in_train: dict[str, bool]
    """The control: whether it changed when the same pairs were put into train."""
    leaking_parts: tuple[str, ...] = ()
    """Parts whose planted pairs changed something: val, test, none (held out, in no mask)."""


class Audit(JsonRecord):
    """Whether a training graph, and a trainer on it, keep held-out pairs out; and what remains unknown."""

    UNREADABLE: ClassVar[str] = "is not a readable audit; run `python -m evaluation.audit` again"

    passed: bool
    """Whether training may begin."""
    checks: tuple[Check, ...]
    """Every kind of leak that was looked for in the graph."""
    canary: Canary | None = None
    """The training with planted pairs; none where no trainer was named or there is nothing held out."""
    cannot_say: tuple[str, ...] = ()
    """What the audit cannot know, a sentence each."""
    digests: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of what the checks compared, by name."""

    @classmethod
    def of(
        cls,
        checks: tuple[Check, ...],
        canary: Canary | None = None,
        cannot_say: tuple[str, ...] = (),
        digests: dict[str, str] | None = None,
    ) -> Self:
        """The verdict over checks and canary: every one has to pass."""
        passed = all(check.passed for check in checks) and (canary is None or canary.passed)
        return cls(passed=passed, checks=checks, canary=canary, cannot_say=cannot_say, digests=digests or {})

    def knowing_less(self, cannot_say: tuple[str, ...]) -> Self:
        """The same with further sentences about what is not known."""
        return self.model_copy(update={"cannot_say": (*self.cannot_say, *cannot_say)})

    def refusal(self) -> str:
        """Every leak that was found, as the text of an error; empty where the audit passed."""
        found = [check.says for check in self.checks if not check.passed]
        found += [self.canary.says] if self.canary and not self.canary.passed else []
        return f"The audit refuses to train: {' '.join(found)}" if found else ""

    def require(self) -> None:
        """Raise InputError, naming every leak, unless the audit passed."""
        if not self.passed:
            raise InputError(self.refusal())


def check(name: str, found: int, clean: str, leak: str) -> Check:
    """A check that passes if nothing was ``found``; it says ``clean``, or ``leak`` with ``{found}`` filled in."""
    return Check(
        name=name, passed=found == 0, found=found, says=leak.replace("{found}", f"{found:,}") if found else clean
    )
