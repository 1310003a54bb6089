from __future__ import annotations

import pytest

from data.errors import InputError
from evaluation.record import EvaluationRecord
from registry.promotion import decide


def test_the_first_model_that_beats_popularity_is_promoted(make_bundle) -> None:
    decision = decide(make_bundle(quality=1.0))
    assert decision.outcome == "promote"
    assert decision.reason.startswith("Promoted: it beats popularity (recall@5 +")
    assert decision.against_popularity is not None
    assert decision.against_popularity.low > 0


def test_a_model_that_does_not_clearly_beat_popularity_is_held(make_bundle) -> None:
    decision = decide(make_bundle(quality=0.0))
    assert decision.outcome == "hold"
    assert "does not clearly beat popularity" in decision.reason


def test_in_sample_numbers_never_promote(make_bundle) -> None:
    decision = decide(make_bundle(quality=2.0, trainer="simple"))
    assert decision.outcome == "hold"
    assert "in-sample" in decision.reason


def test_a_worse_model_on_the_same_split_is_held(make_bundle) -> None:
    decision = decide(make_bundle(quality=0.6), 7, make_bundle(quality=2.0))
    assert decision.outcome == "hold"
    assert "worse than champion 7" in decision.reason
    assert decision.against_champion is not None
    assert decision.against_champion.mean < 0
    assert (decision.champion, decision.common_users) == (7, 40)


@pytest.mark.parametrize("rival", [2.0, 0.6])
def test_a_model_that_is_not_worse_is_promoted(make_bundle, rival: float) -> None:
    assert decide(make_bundle(quality=2.0), 7, make_bundle(quality=rival)).outcome == "promote"


def test_another_split_is_not_compared(make_bundle) -> None:
    decision = decide(make_bundle(quality=0.6, seed=1), 7, make_bundle(quality=2.0))
    assert decision.outcome == "promote"
    assert "stands on another split" in decision.reason
    assert decision.against_champion is None


def test_a_made_up_log_never_replaces_a_real_one(make_bundle) -> None:
    for seed in (0, 1):
        decision = decide(make_bundle(quality=2.0, seed=seed, source="synthetic"), 7, make_bundle(quality=0.6))
        assert decision.outcome == "hold"
        assert "made-up log" in decision.reason
    assert decide(make_bundle(quality=2.0), 7, make_bundle(quality=2.0, source="synthetic")).outcome == "promote"


def test_a_champion_measured_at_another_k_is_not_compared(make_bundle) -> None:
    decision = decide(make_bundle(quality=2.0), 7, make_bundle(quality=0.6, k=4))
    assert decision.outcome == "hold"
    assert "not measured by the same recall@5" in decision.reason


def test_a_damaged_champion_is_not_compared_with(make_bundle) -> None:
    champion = make_bundle()
    (champion / "per_user.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"per_user\.parquet is damaged"):
        decide(make_bundle(), 7, champion)


def test_a_model_without_its_baseline_is_held(make_bundle) -> None:
    bundle = make_bundle()
    record = EvaluationRecord.read(bundle / "metrics.json")
    record.model_copy(update={"baselines": {}}).write(bundle / "metrics.json")
    assert decide(bundle).reason == "Held: it was not measured beside popularity."
