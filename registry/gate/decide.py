"""The gate decides if a new model, the challenger, takes the champion's place. docs/gate.md explains the rule.

Torch is loaded only to compare two models, so that a config with a gate is read without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from evaluation.record import EvaluationRecord, read_per_user
from evaluation.statistics.intervals import paired_difference
from registry.bundle.manifest import (
    EMBEDDINGS,
    EVALUATED_FILES,
    LOCAL,
    MANIFEST,
    Manifest,
    read_manifest,
    verify_files,
)
from registry.gate.data_checks import check_data
from registry.gate.gate_config import Decision, GateConfig
from registry.gate.policy import SEED, Findings, apply_policy, interval_words
from registry.gate.power import noise_between_seeds
from registry.gate.same_split import why_not_clean

__all__ = ["COMPARED_FILES", "Decision", "GateConfig", "decide"]

BASELINE = "popularity"
SONGS = "songs.parquet"
COMPARED_FILES = (
    MANIFEST,
    "users.parquet",
    SONGS,
    "artists.parquet",
    "song_artists.parquet",
    "seen.parquet",
    EMBEDDINGS,
    LOCAL,
    *sorted(EVALUATED_FILES),
    "seeds.json",
)
"""The files of a champion's bundle that a decision reads, if its manifest names them."""

DEFAULTS = GateConfig()


def decide(
    bundle: Path,
    champion: int | None = None,
    champion_bundle: Path | None = None,
    recent: Sequence[Mapping[str, Any]] = (),
    config: GateConfig = DEFAULTS,
) -> Decision:
    """Judge a bundle, by itself and against the champion.

    It becomes champion if its numbers are out of sample and audited, its log looks like the last ones, it beats
    popularity, and it is shown to be not worse than the champion on users and pairs that neither has seen. It is
    rejected if it is shown to be worse. Everything else is held: the champion stays. A model of a real log is not
    compared with a champion of a synthetic one.

    Args:
        bundle: a verified bundle.
        champion: the champion's version, if there is one.
        champion_bundle: a folder with ``COMPARED_FILES`` of its bundle, if it has them; they are verified here.
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
    digests = {role: one.manifest.digest for role, one in (("challenger", ours), ("champion", theirs)) if one}
    found = _in_sample(record) + _audit(ours)
    if theirs and theirs.made_up and not ours.made_up:
        found += _popularity(bundle, record, f"champion {champion} learned from a made-up log")
        found += _data(ours, None, (), config)
    else:
        found += _data(ours, theirs, recent, config)
        found += Findings() if champion is None else _against(ours, theirs, record, champion, config)
        found += _popularity(bundle, record, "there is no champion" if champion is None else "")
    return found.decide(start.model_copy(update={"compared": digests}))


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
        """Return the content of a JSON file, or None if the bundle has no such file."""
        if name not in self.manifest.files:
            return None
        content: dict[str, Any] = json.loads((self.folder / name).read_text(encoding="utf-8"))
        return content

    @property
    def made_up(self) -> bool:
        """Return if its log is the synthetic one."""
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
    checks = [*audit.get("checks", ()), audit.get("canary") or {"passed": True}]
    failed = " ".join(str(check.get("says")) for check in checks if not check.get("passed"))
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
    """Compare with popularity; ``alone`` says why there is no champion to beat, if there is none."""
    if record.watched not in record.baselines.get(BASELINE, {}):
        return Findings(lacks=("it was not compared with popularity",))
    table = bundle / "per_user.parquet"
    model, baseline = (read_per_user(table, f"{prefix}{record.watched}")[1] for prefix in ("", f"{BASELINE} "))
    gap = paired_difference(model, baseline, SEED)
    shown, figures = f"{record.watched} {interval_words(gap)}", {"against_popularity": gap}
    if gap.low <= 0:
        return Findings(lacks=(f"it does not clearly beat popularity: {shown}",), figures=figures)
    return Findings(merits=(f"it beats popularity{', and ' if alone else ''}{alone}: {shown}",), figures=figures)


def _against(
    ours: _Bundle, theirs: _Bundle | None, record: EvaluationRecord, champion: int, config: GateConfig
) -> Findings:
    """Compare with the champion, if both can be measured on listens that neither has seen."""
    if theirs is None:
        return _no_clean_comparison(champion, "its files were not given")
    if ours.made_up and not theirs.made_up:
        return Findings(doubts=(f"it learned from a made-up log and champion {champion} from a real one",))
    if problem := why_not_clean(ours.manifest, theirs.manifest):
        return _no_clean_comparison(champion, problem)
    from registry.gate.compare import compare

    files = ours.manifest.evaluated, theirs.manifest.evaluated
    comparison = compare(ours.folder, theirs.folder, record.k, files)
    if not len(comparison.watched):
        return _no_clean_comparison(champion, "there is no test pair that the champion has not seen")
    noise = _noise(ours, theirs, record.watched)
    return apply_policy(comparison, record.watched, champion, noise, config) + _refitted(ours, theirs)


def _no_clean_comparison(champion: int, why: str) -> Findings:
    return Findings(doubts=(f"no clean comparison with champion {champion}: {why}",))


def _noise(ours: _Bundle, theirs: _Bundle, metric: str) -> float | None:
    """Return the noise between the challenger's seeds, or between the champion's if the challenger has too few."""
    seeds = (bundle.read("seeds.json") for bundle in (ours, theirs))
    measured = (noise_between_seeds(found, metric) for found in seeds if found is not None)
    return next((noise for noise in measured if noise is not None), None)


def _refitted(ours: _Bundle, theirs: _Bundle) -> Findings:
    """Note which side was refitted, and so was compared by the model that was evaluated before."""
    refitted = [role for role, one in (("challenger", ours), ("champion", theirs)) if one.manifest.facts.refit]
    if not refitted:
        return Findings()
    note = f"{' and '.join(refitted)} compared by the evaluated model, which was trained without the held-out listens"
    return Findings(notes=(note,), figures={"evaluated_models": True})
