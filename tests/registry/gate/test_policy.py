"""The rule itself, on comparisons made by hand: all users have 0.2 from the champion, so the margin is 0.004."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from registry.gate.compare import Comparison, Paired
from registry.gate.gate_config import Decision, GateConfig
from registry.gate.guardrails import check_guardrails
from registry.gate.policy import apply_policy
from registry.gate.power import LEAST_USERS, needed_users, noise_between_seeds

START = Decision(outcome="hold", reason="", metric="recall@10", users=1)
NOTHING = Paired(np.zeros(0), np.zeros(0))


def paired(gap: float, spread: float = 0.1, users: int = 4000, champion: float = 0.2) -> Paired:
    """Users whose differences are half ``gap + spread`` and half ``gap - spread``."""
    base = np.full(users, champion)
    return Paired(base + gap + spread * np.where(np.arange(users) % 2, 1, -1), base)


def decision_on(watched: Paired, noise: float | None = None, guarded: dict[str, Paired] | None = None) -> Decision:
    comparison = Comparison(watched, watched, guarded or {})
    return apply_policy(comparison, "recall@10", 7, noise, GateConfig()).decide(START)


def test_a_clear_loss_is_rejected_in_words() -> None:
    decision = decision_on(paired(-0.02))
    assert decision.outcome == "reject"
    assert decision.reason.startswith("Rejected: it is worse than champion 7: recall@10 -0.0200 [-0.0")
    assert decision.reason.endswith("], margin 0.0040.")
    assert (decision.champion_value, decision.challenger_value) == pytest.approx((0.2, 0.18))


def test_a_clear_loss_within_the_margin_is_not_worse() -> None:
    decision = decision_on(paired(-0.003, spread=0.01))
    assert decision.against_champion is not None
    assert decision.against_champion.high < 0
    assert decision.outcome == "promote"
    assert decision.reason.startswith("Promoted: it is not worse than champion 7")


def test_a_loss_that_may_be_chance_is_held() -> None:
    decision = decision_on(paired(-0.003))
    assert decision.outcome == "hold"
    assert decision.reason.startswith("Held: it may be worse than champion 7: recall@10 -0.0030 [")


def test_equal_models_are_promoted_as_not_worse() -> None:
    decision = decision_on(paired(0.0, spread=0.0), noise=0.001)
    assert (decision.outcome, decision.better) == ("promote", False)


@pytest.mark.parametrize(
    ("noise", "better", "sentence"),
    [
        (0.005, True, "it is better than champion 7: recall@10 +0.0100"),
        (0.012, False, "it is not worse than champion 7"),
        (None, False, "it is not worse than champion 7"),
    ],
)
def test_a_model_is_called_better_only_above_the_noise_between_seeds(
    noise: float | None, better: bool, sentence: str
) -> None:
    decision = decision_on(paired(0.01), noise)
    assert (decision.outcome, decision.better) == ("promote", better)
    assert sentence in decision.reason
    assert any("It is not called better" in reason for reason in decision.reasons) is not better


def test_too_few_users_are_held_and_both_numbers_are_named() -> None:
    decision = decision_on(paired(0.05, spread=0.2, users=1000))
    assert decision.outcome == "hold"
    assert decision.needed_users == 4208  # ((1.960 + 1.282) * 0.2 / (0.05 * 0.2))^2, with the sample's spread
    assert decision.reason == "Held: 1,000 users are too few: 4,208 are needed to find a loss of 5%."


def test_a_loss_that_even_few_users_show_is_rejected() -> None:
    assert decision_on(paired(-0.1, spread=0.2, users=200)).outcome == "reject"


def test_users_below_thirty_are_never_enough() -> None:
    decision = decision_on(paired(0.01, spread=0.0, users=29))
    assert decision.reason == "Held: 29 users are too few: 30 are needed to find a loss of 5%."


def test_a_champion_without_any_hit_is_replaced_by_a_model_with_some() -> None:
    assert decision_on(paired(0.1, spread=0.05, champion=0.0)).outcome == "promote"


def test_as_many_users_as_needed_find_the_loss_as_often_as_promised() -> None:
    config, spread = GateConfig(), 0.15
    users = needed_users(paired(0.0, spread).difference, 0.2, config)
    error = spread / users**0.5
    found = np.random.default_rng(0).normal(-0.05 * 0.2, error, size=20_000)
    rejected = (found + 1.96 * error < 0) & (found < -config.margin * 0.2)
    assert rejected.mean() == pytest.approx(0.9, abs=0.01)


def test_a_loss_near_the_margin_needs_more_users() -> None:
    difference = paired(0.0, 0.15).difference
    near = GateConfig(margin=0.04)
    assert needed_users(difference, 0.2, near) == pytest.approx((1.2816 * 0.75 / 0.01) ** 2, rel=0.01)
    with pytest.raises(InputError, match=r"detectable_loss 0\.05 has to be above margin 0\.05"):
        GateConfig.parse({"margin": 0.05}, "gate")


def test_noise_is_that_of_a_difference_of_two_and_needs_five_seeds() -> None:
    seeds = {"seeds": [0, 1, 2, 3, 4], "metrics": {"recall@10": {"sd": 0.01}}}
    assert noise_between_seeds(seeds, "recall@10") == pytest.approx(2.7764 * 2**0.5 * 0.01, rel=1e-4)
    assert noise_between_seeds(seeds, "recall@20") is None
    assert noise_between_seeds({**seeds, "seeds": [0, 1, 2, 3]}, "recall@10") is None


def test_two_seeds_of_one_configuration_rarely_exceed_the_noise() -> None:
    """Seven models whose recall varies by chance: two are compared, five say how great the chance is."""
    drawn = np.random.default_rng(0).normal(0.2, 0.004, size=(20_000, 7))
    noise = noise_between_seeds({"seeds": range(5), "metrics": {"recall@10": {"sd": 1.0}}}, "recall@10")
    exceeded = drawn[:, 0] - drawn[:, 1] > noise * drawn[:, 2:].std(axis=1, ddof=1)
    assert exceeded.mean() == pytest.approx(0.025, abs=0.004)


def test_a_broken_guardrail_holds_and_is_named() -> None:
    guarded = {"coverage": paired(-0.06), "tail recall": paired(0.01)}
    decision = decision_on(paired(0.01), guarded=guarded)
    assert decision.outcome == "hold"
    assert decision.reason.startswith("Held: coverage 0.1400 against 0.2000, clearly more than 10% lost (p ")
    assert [guardrail.passed for guardrail in decision.guardrails] == [False, True]


def test_a_loss_within_the_guardrails_margin_passes() -> None:
    (judged,) = check_guardrails({"coverage": paired(-0.019, spread=0.001)}, 0.1)
    assert judged.passed


def test_guardrails_are_corrected_for_their_number() -> None:
    """A loss with p 0.015 breaks a guardrail that stands alone, and none of four."""
    users, spread = 4000, 0.1
    suspicious = paired(-0.02 - 2.17 * spread / users**0.5, spread, users)
    fine = {name: paired(0.0) for name in ("tail recall", "cold users' recall", "artist diversity")}
    (alone,) = check_guardrails({"coverage": suspicious}, 0.1)
    among, *_ = check_guardrails({"coverage": suspicious, **fine}, 0.1)
    assert alone.p == pytest.approx(0.015, abs=0.001)
    assert (alone.passed, among.passed) == (False, True)
    assert among.p == pytest.approx(4 * 0.015, abs=0.004)
    assert among.difference is not None
    assert alone.difference is not None
    assert among.difference.low < alone.difference.low


def test_a_guardrail_without_data_is_skipped_with_a_note() -> None:
    judged = check_guardrails({"tail recall": NOTHING, "coverage": paired(-0.1)}, 0.1)
    assert [(guardrail.passed, guardrail.users) for guardrail in judged] == [(True, 0), (False, 4000)]
    assert judged[0].says == "tail recall skipped: 0 users have it, too few to test"
    assert judged[1].p == pytest.approx(0.0)


def test_users_and_songs_that_both_know_are_shown_beside_it() -> None:
    comparison = Comparison(paired(0.02), paired(-0.01, users=3000), {})
    decision = apply_policy(comparison, "recall@10", 7, None, GateConfig()).decide(START)
    assert decision.outcome == "promote"
    assert (decision.compared_users, decision.common_users) == (4000, 3000)
    assert decision.on_common is not None
    assert decision.on_common.mean == pytest.approx(-0.01)
    none = apply_policy(Comparison(paired(0.02), NOTHING, {}), "recall@10", 7, None, GateConfig()).decide(START)
    assert "The two have no user and no song in common." in none.reasons


@settings(deadline=None, max_examples=60)
@given(
    gap=st.floats(-0.1, 0.1),
    spread=st.floats(0, 0.3),
    users=st.integers(2, 500),
    noise=st.none() | st.floats(0, 0.1),
    lost=st.floats(-0.2, 0.1),
)
def test_no_decision_contradicts_its_numbers(
    gap: float, spread: float, users: int, noise: float | None, lost: float
) -> None:
    decision = decision_on(paired(gap, spread, users), noise, {"coverage": paired(lost, 0.05, users)})
    found, margin, needed = decision.against_champion, decision.margin, decision.needed_users
    assert found is not None
    assert margin is not None
    assert needed is not None
    if decision.outcome == "promote":
        assert found.low > -margin
        assert users >= needed >= LEAST_USERS
        assert all(guardrail.passed for guardrail in decision.guardrails)
    assert (decision.outcome == "reject") == (found.high < 0 and found.mean < -margin)
    if decision.better:
        assert noise is not None
        assert found.low > 0
        assert found.mean > noise
    assert decision.reason.startswith(
        {"promote": "Promoted: ", "hold": "Held: ", "reject": "Rejected: "}[decision.outcome]
    )
    assert Decision.model_validate_json(decision.model_dump_json()) == decision
