"""Decisions about real bundles."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data.errors import InputError
from evaluation.record import EvaluationRecord
from registry.bundle.assemble import assemble_bundle
from registry.bundle.manifest import (
    BUNDLE_FILES,
    EVALUATED_EMBEDDINGS,
    LOCAL,
    MANIFEST,
    OPTIONAL_FILES,
    Manifest,
    ModelFacts,
    read_manifest,
)
from registry.gate.decide import COMPARED_FILES, GateConfig, decide
from registry.gate.gate_config import Decision
from registry.gate.same_split import why_not_clean

EVALUATED = "Challenger compared by the evaluated model, which was trained without the held-out listens."
PROFILE = {"plays": 1000, "pairs": 240, "users": 40, "rejected_share": 0.0}


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_the_first_model_that_beats_popularity_is_promoted(make_bundle) -> None:
    decision = decide(make_bundle(quality=1.0))
    assert decision.outcome == "promote"
    assert decision.reason.startswith("Promoted: it beats popularity, and there is no champion: recall@5 +")
    assert decision.against_popularity is not None
    assert decision.against_popularity.low > 0


def test_a_model_that_does_not_clearly_beat_popularity_is_held(make_bundle) -> None:
    decision = decide(make_bundle(quality=0.0))
    assert decision.outcome == "hold"
    assert decision.reason.startswith("Held: it does not clearly beat popularity: recall@5 ")


def test_in_sample_numbers_never_promote(make_bundle, lenient: GateConfig) -> None:
    simple = make_bundle(quality=2.0, trainer="simple")
    for decision in (decide(simple), decide(simple, 7, make_bundle(quality=0.6), config=lenient)):
        assert decision.outcome == "hold"
        assert decision.reason == "Held: its numbers are in-sample and say nothing about new listens."


def test_a_worse_model_is_rejected(make_bundle) -> None:
    challenger, champion = make_bundle(quality=0.6), make_bundle(quality=2.0)
    decision = decide(challenger, 7, champion)
    assert decision.outcome == "reject"
    assert decision.reason.startswith("Rejected: it is worse than champion 7: recall@5 -")
    assert (decision.champion, decision.compared_users, decision.common_users) == (7, 40, 40)
    digests = {"challenger": read_manifest(challenger).digest, "champion": read_manifest(champion).digest}
    assert decision.compared == digests


def test_a_better_model_on_too_few_users_is_held(make_bundle) -> None:
    decision = decide(make_bundle(quality=2.0), 7, make_bundle(quality=0.6))
    assert decision.reason.startswith("Held: 40 users are too few: ")


@pytest.mark.parametrize("rival", [2.0, 0.6])
def test_a_model_that_is_not_worse_is_promoted(make_bundle, lenient: GateConfig, rival: float) -> None:
    decision = decide(make_bundle(quality=2.0), 7, make_bundle(quality=rival), config=lenient)
    assert decision.outcome == "promote"
    assert decision.reason.startswith("Promoted: it is not worse than champion 7")


@pytest.mark.parametrize("side", ["challenger", "champion"])
def test_the_noise_is_taken_from_whoever_was_trained_with_five_seeds(
    make_parts, tmp_path: Path, lenient: GateConfig, side: str
) -> None:
    content = {"seeds": [0, 1, 2, 3, 4], "metrics": {"recall@5": {"sd": 0.001}}}
    seeds = write_json(tmp_path / "seeds" / "seeds.json", content)
    for role, quality in (("challenger", 2.0), ("champion", 0.6)):
        given = {"seeds": seeds} if role == side else {}
        assemble_bundle(tmp_path / role, **make_parts(quality=quality), **given)
    decision = decide(tmp_path / "challenger", 7, tmp_path / "champion", config=lenient)
    assert decision.better
    assert decision.reason.startswith("Promoted: it is better than champion 7: recall@5 +")
    assert decision.reason.endswith("noise between seeds 0.0039.")


@pytest.mark.parametrize(
    ("audit", "reason"),
    [
        (None, "no audit for leaks was recorded"),
        (
            {"passed": False, "checks": [{"name": "edges", "passed": False, "says": "9 test pairs send messages."}]},
            "the audit found a leak: 9 test pairs send messages",
        ),
        (
            {"passed": False, "checks": [], "canary": {"passed": False, "says": "The weights know planted pairs."}},
            "the audit found a leak: The weights know planted pairs",
        ),
    ],
)
def test_without_a_passed_audit_nothing_is_promoted(make_parts, tmp_path: Path, audit: Any, reason: str) -> None:
    path = write_json(tmp_path / "stage" / "audit.json", audit) if audit else None
    assemble_bundle(tmp_path / "bundle", **{**make_parts(quality=2.0), "audit": path})
    decision = decide(tmp_path / "bundle")
    assert (decision.outcome, decision.reason) == ("hold", f"Held: {reason}.")


def test_a_leak_is_no_reason_to_reject(make_parts, make_bundle, tmp_path: Path) -> None:
    """Numbers that cannot be trusted say nothing, also not that a model is worse."""
    assemble_bundle(tmp_path / "bundle", **{**make_parts(quality=0.6), "audit": None})
    assert decide(tmp_path / "bundle", 7, make_bundle(quality=2.0)).outcome == "hold"


def test_without_a_profile_nothing_is_promoted(make_parts, tmp_path: Path) -> None:
    assemble_bundle(tmp_path / "bundle", **{**make_parts(quality=2.0), "profile": None})
    assert decide(tmp_path / "bundle").reason.startswith("Held: no profile of its log was recorded")


def test_an_unusual_log_is_held(make_bundle) -> None:
    decision = decide(make_bundle(quality=2.0), recent=[{**PROFILE, "plays": 5000}] * 3)
    assert decision.outcome == "hold"
    assert decision.reason == (
        "Held: its data is unusual: plays 1,000 against 5,000 in the last 3 versions, allowed 4,000 to 10,000."
    )
    assert [check.name for check in decision.data_checks if not check.passed] == ["plays"]


def test_a_made_up_log_never_replaces_a_real_one(make_bundle, lenient: GateConfig) -> None:
    made_up = make_bundle(quality=2.0, source="synthetic")
    decision = decide(made_up, 7, make_bundle(quality=0.6), config=lenient)
    assert decision.reason == "Held: it learned from a made-up log and champion 7 from a real one."


def test_a_real_log_replaces_a_made_up_one_as_soon_as_it_beats_popularity(make_bundle) -> None:
    """The two logs share neither songs nor listens, so that there is nothing to compare."""
    real, made_up = make_bundle(quality=2.0, seed=1), make_bundle(quality=3.0, source="synthetic")
    decision = decide(real, 7, made_up, recent=[{**PROFILE, "plays": 5000}] * 3)
    assert decision.reason.startswith("Promoted: it beats popularity, and champion 7 learned from a made-up log: ")
    assert decision.champion == 7


def test_another_fold_is_no_clean_comparison(make_bundle, lenient: GateConfig) -> None:
    decision = decide(make_bundle(quality=2.0, seed=1), 7, make_bundle(quality=0.6), config=lenient)
    assert decision.reason == (
        "Held: no clean comparison with champion 7: the challenger's split has salt 1, and that of the champion has 0."
    )
    assert decision.against_champion is None


def test_a_champion_measured_at_another_k_is_measured_again(make_bundle, lenient: GateConfig) -> None:
    decision = decide(make_bundle(quality=2.0), 7, make_bundle(quality=0.6, k=4), config=lenient)
    assert (decision.outcome, decision.metric) == ("promote", "recall@5")


def test_a_champion_that_was_trained_on_everything_is_no_clean_comparison(make_bundle) -> None:
    decision = decide(make_bundle(quality=2.0), 7, make_bundle(quality=0.6, trainer="simple"))
    assert "the champion was trained on all listens" in decision.reason


def test_a_refitted_model_is_compared_by_its_evaluated_model(
    make_parts, make_bundle, tmp_path: Path, lenient: GateConfig
) -> None:
    """Its published weights have seen the test pairs; here the evaluated model is the worse one, and counts."""
    refit = make_parts(quality=2.0)["model"]
    assemble_bundle(tmp_path / "bundle", **make_parts(quality=0.6), refit=refit)
    decision = decide(tmp_path / "bundle", 7, make_bundle(quality=2.0))
    assert (decision.outcome, decision.evaluated_models) == ("reject", True)
    assert EVALUATED in decision.reasons
    as_champion = decide(make_bundle(quality=2.0), 7, tmp_path / "bundle", config=lenient)
    assert (as_champion.outcome, as_champion.evaluated_models) == ("promote", True)


def test_a_model_is_compared_by_its_local_channel(make_bundle, lenient: GateConfig) -> None:
    """With the same vectors, one whose channel turns their order round is the worse one."""
    right, wrong = make_bundle(quality=2.0, similarity=1.0), make_bundle(quality=2.0, similarity=-1.0)
    assert decide(wrong, 7, right).outcome == "reject"
    assert decide(right, 7, wrong, config=lenient).outcome == "promote"
    without = make_bundle(quality=2.0)
    assert decide(wrong, 7, without).outcome == "reject"
    assert decide(without, 7, wrong, config=lenient).outcome == "promote"


def test_a_refitted_model_is_compared_by_its_evaluated_models_local_channel(
    make_parts, make_bundle, tmp_path: Path
) -> None:
    refit = make_parts(quality=2.0, similarity=1.0)["model"]
    assemble_bundle(tmp_path / "bundle", **make_parts(quality=2.0, similarity=-1.0), refit=refit)
    assert decide(tmp_path / "bundle", 7, make_bundle(quality=2.0)).outcome == "reject"


def test_a_champions_damaged_local_channel_is_refused(make_bundle) -> None:
    champion = make_bundle(similarity=1.0)
    shutil.copyfile(make_bundle(similarity=0.5) / LOCAL, champion / LOCAL)
    with pytest.raises(InputError, match=r"local\.safetensors is damaged or belongs to another bundle"):
        decide(make_bundle(), 7, champion)


def test_a_champion_without_files_is_not_compared_with(make_bundle) -> None:
    assert decide(make_bundle(quality=2.0), 7).reason == (
        "Held: no clean comparison with champion 7: its files were not given."
    )


def test_a_damaged_champion_is_refused(make_bundle) -> None:
    champion = make_bundle()
    (champion / "seen.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"seen\.parquet is damaged"):
        decide(make_bundle(), 7, champion)


@pytest.mark.parametrize("similarity", [None, 0.5])
def test_the_compared_files_are_all_that_is_read_of_a_champion(
    make_bundle, lenient: GateConfig, similarity: float | None
) -> None:
    champion = make_bundle(quality=0.6, similarity=similarity)
    for name in (BUNDLE_FILES | OPTIONAL_FILES) - set(COMPARED_FILES):
        (champion / name).unlink(missing_ok=True)
    assert decide(make_bundle(quality=2.0), 7, champion, config=lenient).outcome == "promote"


def test_a_model_without_its_baseline_is_held(make_bundle) -> None:
    bundle = make_bundle()
    record = EvaluationRecord.read(bundle / "metrics.json")
    record.model_copy(update={"baselines": {}}).write(bundle / "metrics.json")
    assert decide(bundle).reason == "Held: it was not compared with popularity."


def test_a_forced_promotion_says_so_for_ever(make_bundle) -> None:
    forced = decide(make_bundle(quality=0.0)).model_copy(update={"outcome": "promote", "forced": "the demo is today"})
    assert Decision.model_validate_json(forced.model_dump_json()).forced == "the demo is today"


def test_a_decision_of_an_earlier_release_is_still_read() -> None:
    old = {"outcome": "hold", "reason": "Held: it is worse.", "metric": "recall@10", "users": 9, "champion": 1}
    gap = {"mean": -0.1, "low": -0.2, "high": -0.05}
    read = Decision.model_validate_json(json.dumps({**old, "common_users": 9, "against_champion": gap}))
    assert (read.common_users, read.forced, read.evaluated_models) == (9, None, False)
    assert Decision.model_validate_json(json.dumps({**old, "twins": True})).evaluated_models


def test_a_gates_config_is_read_without_torch() -> None:
    code = "import sys, registry.gate.decide; sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


RANDOM = {"strategy": "random", "salt": 1, "val_ratio": 0.1, "test_ratio": 0.2}
COLUMN = {"strategy": "column", "salt": 0}
LAST = {"strategy": "leave_last_out", "salt": 0}


def temporal(day: str | None) -> dict[str, Any]:
    return {"strategy": "temporal", "val_from": day, "test_from": day}


def manifest(*splits: dict[str, Any], digest: str = "one", **facts: Any) -> Manifest:
    plain = {"source": "log", "trainer": "advanced", "split_digest": digest, "in_sample": False, "seen_splits": splits}
    return Manifest(facts=ModelFacts.model_validate({**plain, **facts}), files=facts.pop("files", {}), digest="")


@pytest.mark.parametrize(
    ("challenger", "champion", "problem"),
    [
        (manifest(RANDOM), manifest(RANDOM, digest="two"), ""),
        (manifest(RANDOM), manifest({**RANDOM, "salt": 2}, digest="two"), "has salt 1, and that of the champion has 2"),
        (manifest(RANDOM), manifest({**RANDOM, "test_ratio": 0.3}, digest="two"), "has test_ratio 0.2"),
        (manifest(RANDOM), manifest({**RANDOM, "val_ratio": 0.3}, digest="two"), "has val_ratio 0.1"),
        (manifest({"strategy": "random"}), manifest({"strategy": "random"}, digest="two"), "has salt None"),
        (
            manifest(RANDOM),
            manifest(temporal("2026-01-01"), digest="two"),
            "is random, and that of the champion is temp",
        ),
        (manifest(temporal("2026-02-01")), manifest(temporal("2026-01-01"), digest="two"), ""),
        (manifest(temporal("2026-02-01")), manifest(temporal("2026-02-01"), digest="two"), ""),
        (
            manifest(temporal("2026-01-01")),
            manifest(temporal("2026-02-01"), digest="two"),
            "the champion has seen days up to 2026-02-01, and the challenger's test days begin on 2026-01-01",
        ),
        (manifest(temporal("2026-02-01")), manifest(temporal(None), digest="two"), "of the champion is not recorded"),
        (manifest(temporal(None)), manifest(temporal("2026-01-01"), digest="two"), "of the challenger is not recorded"),
        (manifest(COLUMN), manifest(COLUMN), ""),
        (manifest(COLUMN), manifest(COLUMN, digest="two"), "the champion has another column split"),
        (manifest(LAST), manifest(LAST, digest="two"), "the champion has another leave_last_out split"),
        (manifest(RANDOM, RANDOM), manifest(RANDOM, digest="two"), ""),
        (manifest(RANDOM, {**RANDOM, "salt": 2}), manifest(RANDOM), "a model that one of them started from has 2"),
        (manifest(RANDOM), manifest(RANDOM, {**RANDOM, "salt": 2}), "a model that one of them started from has 2"),
        (manifest(RANDOM, in_sample=True), manifest(RANDOM), "the challenger was trained on all listens"),
        (manifest(RANDOM, refit=True), manifest(RANDOM), "its bundle lacks the model that was evaluated"),
        (manifest(RANDOM), manifest(RANDOM, refit=True), "the champion was trained once more on all listens"),
    ],
)
def test_what_is_a_clean_comparison(challenger: Manifest, champion: Manifest, problem: str) -> None:
    found = why_not_clean(challenger, champion)
    assert (problem in found) if problem else not found


def test_a_refitted_model_with_its_evaluated_model_is_clean() -> None:
    refitted = manifest(RANDOM, refit=True).model_copy(
        update={"files": {EVALUATED_EMBEDDINGS: "digest", MANIFEST: "digest"}}
    )
    assert why_not_clean(refitted, refitted) == ""
