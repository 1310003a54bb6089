"""The gate: whether a new model, the challenger, takes the champion's place. The rule is explained in docs/gate.md.

Torch is loaded only where two models are compared, so that a config with a gate is read without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from evaluation.record import EvaluationRecord, read_per_user
from evaluation.statistics.intervals import paired_difference
from registry.bundle.manifest import EMBEDDINGS, LOCAL, TWIN, TWIN_LOCAL, Manifest, read_manifest, verify_files
from registry.gate.data_checks import check_data
from registry.gate.gate_config import Decision, GateConfig
from registry.gate.policy import SEED, Findings, interval_words, judge
from registry.gate.power import noise_between_seeds
from registry.gate.same_split import why_not_clean

__all__ = ["COMPARED_FILES", "Decision", "GateConfig", "decide"]

BASELINE = "popularity"
SONGS = "songs.parquet"
COMPARED_FILES = (
    "manifest.json",
    "users.parquet",
    SONGS,
    "artists.parquet",
    "song_artists.parquet",
    "seen.parquet",
    EMBEDDINGS,
    LOCAL,
    TWIN,
    TWIN_LOCAL,
    "seeds.json",
)
"""The files of a champion's bundle that a decision reads, as far as its manifest names them."""

DEFAULTS = GateConfig()


def decide(
    bundle: Path,
    champion: int | None = None,
    champion_bundle: Path | None = None,
    recent: Sequence[Mapping[str, Any]] = (),
    config: GateConfig = DEFAULTS,
) -> Decision:
    """Judge a bundle, by itself and against the champion.

    It becomes champion when its numbers are out of sample and audited, its log looks like the last ones, it beats
    popularity, and it is shown to be not worse than the champion on users and pairs that neither has seen. It is
    rejected when it is shown to be worse. Everything else is held: the champion stays. A champion of a made-up log is
    none to a model of a real one.

    Args:
        bundle: a verified bundle.
        champion: the champion's version, if there is one.
        champion_bundle: a folder with ``COMPARED_FILES`` of its bundle, as far as it has them; they are verified here.
        recent: the profiles (``profile.json``) of the last versions, newest first.
        config: margins and limits.

    Raises:
        InputError: a file of the champion is missing or damaged.
    """
    ours, record = _Bundle.of(bundle), EvaluationRecord.read(bundle / "metrics.json")
    theirs = None if champion is None or champion_bundle is None else _Bundle.of(champion_bundle)
    if theirs:
        theirs.verify(COMPARED_FILES)
    start = Decision(outcome="hold", reason="", metric=record.watched, users=record.num_users, champion=champion)
    digests = {role: side.manifest.digest for role, side in (("challenger", ours), ("champion", theirs)) if side}
    found = _in_sample(record) + _audit(ours)
    if theirs and theirs.made_up and not ours.made_up:
        found += _popularity(bundle, record, f"champion {champion} learned from a made-up log")
        found += _data(ours, None, (), config)
    else:
        found += _data(ours, theirs, recent, config) + _comparison(ours, theirs, record, champion, config)
        found += _popularity(bundle, record, "there is no champion" if champion is None else "")
    return found.concluded(start.model_copy(update={"compared": digests}))


@dataclass(frozen=True)
class _Bundle:
    folder: Path
    manifest: Manifest

    @classmethod
    def of(cls, folder: Path) -> Self:
        return cls(folder, read_manifest(folder))

    def verify(self, names: Iterable[str]) -> None:
        """Hash those of the files that the manifest names."""
        verify_files(self.folder, self.manifest, [name for name in names if name in self.manifest.files])

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file, or None where the bundle has none of this name."""
        if name not in self.manifest.files:
            return None
        content: dict[str, Any] = json.loads((self.folder / name).read_text(encoding="utf-8"))
        return content

    @property
    def made_up(self) -> bool:
        """Whether its log is the synthetic one."""
        return self.manifest.facts.source == "synthetic"


def _in_sample(record: EvaluationRecord) -> Findings:
    doubt = "its numbers are in-sample and say nothing about new listens"
    return Findings(doubts=(doubt,) if record.in_sample else ())


def _audit(ours: _Bundle) -> Findings:
    audit = ours.read("audit.json")
    if audit is None:
        return Findings(doubts=("no audit for leaks was recorded",))
    if audit.get("passed") is True:
        return Findings(notes=("the audit for leaks was passed",))
    looked_at = [*audit.get("checks", ()), audit.get("canary") or {"passed": True}]
    failed = " ".join(str(check.get("says")) for check in looked_at if not check.get("passed"))
    return Findings(doubts=(f"the audit found a leak: {failed.rstrip('.') or 'it does not say which'}",))


def _data(ours: _Bundle, theirs: _Bundle | None, recent: Sequence[Mapping[str, Any]], config: GateConfig) -> Findings:
    profile = ours.read("profile.json")
    if profile is None:
        return Findings(doubts=("no profile of its log was recorded, so its data cannot be checked",))
    songs = (ours.folder / SONGS, theirs.folder / SONGS) if theirs else None
    checks = check_data(profile, recent, songs, config)
    doubts = tuple(f"its data is unusual: {check.says}" for check in checks if not check.passed)
    usual = tuple(check.says for check in checks if check.passed)
    return Findings(doubts, notes=usual, figures={"data_checks": checks})


def _popularity(bundle: Path, record: EvaluationRecord, alone: str) -> Findings:
    """Whether it beats popularity; ``alone`` says why that is all it has to beat."""
    if record.watched not in record.baselines.get(BASELINE, {}):
        return Findings(lacks=("it was not measured beside popularity",))
    table = bundle / "per_user.parquet"
    model, baseline = (read_per_user(table, f"{prefix}{record.watched}")[1] for prefix in ("", f"{BASELINE} "))
    gap = paired_difference(model, baseline, SEED)
    shown, figures = f"{record.watched} {interval_words(gap)}", {"against_popularity": gap}
    if gap.low <= 0:
        return Findings(lacks=(f"it does not clearly beat popularity: {shown}",), figures=figures)
    return Findings(merits=(f"it beats popularity{', and ' if alone else ''}{alone}: {shown}",), figures=figures)


def _comparison(
    ours: _Bundle, theirs: _Bundle | None, record: EvaluationRecord, champion: int | None, config: GateConfig
) -> Findings:
    if champion is None:
        return Findings()
    if theirs is None:
        return _no_clean_comparison(champion, "its files were not given")
    return _against(ours, theirs, record, champion, config)


def _against(ours: _Bundle, theirs: _Bundle, record: EvaluationRecord, champion: int, config: GateConfig) -> Findings:
    if ours.made_up and not theirs.made_up:
        return Findings(doubts=(f"it learned from a made-up log and champion {champion} from a real one",))
    if problem := why_not_clean(ours.manifest, theirs.manifest):
        return _no_clean_comparison(champion, problem)
    from registry.gate.compare import compare

    measured = ours.manifest.measured, theirs.manifest.measured
    comparison = compare(ours.folder, theirs.folder, record.k, measured)
    if not len(comparison.watched):
        return _no_clean_comparison(champion, "there is no test pair that the champion has not seen")
    judged = judge(comparison, record.watched, champion, _noise(ours, theirs, record.watched), config)
    return judged + _twins(ours, theirs)


def _no_clean_comparison(champion: int, why: str) -> Findings:
    return Findings(doubts=(f"no clean comparison with champion {champion}: {why}",))


def _noise(ours: _Bundle, theirs: _Bundle, metric: str) -> float | None:
    """By the challenger's own seeds or, where it was trained with too few, by the champion's."""
    seeds = (side.read("seeds.json") for side in (ours, theirs))
    measured = (noise_between_seeds(found, metric) for found in seeds if found is not None)
    return next((noise for noise in measured if noise is not None), None)


def _twins(ours: _Bundle, theirs: _Bundle) -> Findings:
    refitted = [role for role, side in (("challenger", ours), ("champion", theirs)) if side.manifest.facts.refit]
    if not refitted:
        return Findings()
    says = f"{' and '.join(refitted)} compared by the twin, which was trained without the held-out listens"
    return Findings(notes=(says,), figures={"twins": True})
