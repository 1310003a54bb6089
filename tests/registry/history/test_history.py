from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from registry.audit_log import AuditRecord, decision_of, extended
from registry.backend.client import RegistryClient
from registry.backend.lock import Lease
from registry.champion import champions, promote, records, rollback
from registry.loading import load


def champion(client: RegistryClient) -> int | None:
    return client.aliases("music").get("champion")


def test_every_decision_is_a_record_with_its_numbers(decided, client: RegistryClient) -> None:
    for number, outcome in enumerate(("promote", "hold", "reject", "promote"), start=1):
        decided(number, outcome)
    found = records(client, "music")
    assert [(record.version, record.before, record.after) for record in found] == [
        (1, None, 1),
        (2, 1, 1),
        (3, 1, 1),
        (4, 1, 4),
    ]
    assert {(record.kind, record.state, record.reconciled) for record in found} == {("decision", "done", False)}
    for record in found:
        assert record.decision is not None
        assert record.decision == decision_of(client.get("music", record.version))
        assert (record.why, record.decision.champion) == (record.decision.reason, record.before)
        assert record.bundle == client.get("music", record.version).tags["bundle_digest"]
        assert "@" in record.by
    assert champion(client) == 4


def test_a_long_decision_is_kept_whole(decided, client: RegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.audit_log.MAX_CHARACTERS", 7)
    decided(1)
    assert records(client, "music")[0].decision == decision_of(client.get("music", 1))


def test_rollback_goes_to_the_champion_before_and_further_back_each_time(decided, client: RegistryClient) -> None:
    for number, outcome in enumerate(("promote", "hold", "promote", "promote"), start=1):
        decided(number, outcome)
    done = rollback(client, "music", "wrong artists in the lists")
    assert (done.kind, done.before, done.after, done.why) == ("rollback", 4, 3, "wrong artists in the lists")
    assert load("champion", "music", client.uri).manifest.digest == client.get("music", 3).tags["bundle_digest"]
    assert rollback(client, "music", "still wrong").after == 1
    with pytest.raises(InputError, match="There is no champion of 'music' before version 1, so there is nothing to go"):
        rollback(client, "music", "and again")
    assert decided(5).champion == 5
    assert rollback(client, "music", "bad night").after == 1


def test_who_rolled_back_does_not_find_it_moved_again(decided, client: RegistryClient) -> None:
    decided(1)
    decided(2)
    rollback(client, "music", "bad")
    assert decided(2).champion == 1
    assert decided(1).champion == 1
    assert len(records(client, "music")) == 3


@pytest.mark.parametrize("outcome", ["hold", "reject"])
def test_a_version_that_was_not_promoted_stays_so_when_its_stage_runs_again(
    decided, client: RegistryClient, outcome: str
) -> None:
    decided(1)
    decided(2, outcome)
    assert decided(2, "promote").champion == 1
    client.delete_version(client.get("music", 2), Lease())
    again = decided(2, "promote")
    assert (again.version, again.champion, again.decision.outcome) == (3, 1, outcome)


def test_rollback_to_a_chosen_former_champion(decided, client: RegistryClient) -> None:
    for number, outcome in enumerate(("promote", "promote", "promote", "hold"), start=1):
        decided(number, outcome)
    with pytest.raises(InputError, match=r"Version 4 of 'music' is no former champion; these are 1, 2\. Use `promote`"):
        rollback(client, "music", "bad", 4)
    assert rollback(client, "music", "bad", 1).after == 1
    assert rollback(client, "music", "it was not that bad", 3).after == 3


def test_rollback_to_a_damaged_bundle_is_refused_by_name_and_says_what_to_choose(
    decided, client: RegistryClient
) -> None:
    for number in (1, 2, 3):
        decided(number)
    with client.bundles.folder(client.get("music", 2)) as folder:
        flipped = bytearray((folder / "lists.parquet").read_bytes())
        flipped[100] ^= 1
        (folder / "lists.parquet").write_bytes(flipped)
    refusal = r"Version 2, the champion before version 3, is of no use\. .*lists\.parquet is damaged.*with --to: 1\."
    with pytest.raises(InputError, match=refusal):
        rollback(client, "music", "bad")
    assert champion(client) == 3
    assert rollback(client, "music", "bad", 1).after == 1


def test_rollback_to_another_versions_vocabulary_is_refused_by_name(
    make_bundle, decided, client: RegistryClient
) -> None:
    decided(1)
    decided(2)
    with client.bundles.folder(client.get("music", 1)) as folder:
        (folder / "users.parquet").write_bytes((folder / "songs.parquet").read_bytes())
    with pytest.raises(InputError, match=r"users\.parquet is damaged or belongs to another bundle.*there is none"):
        rollback(client, "music", "bad")
    with pytest.raises(InputError, match=r"users\.parquet is damaged"):
        promote(client, "music", 1, "bad")
    assert champion(client) == 2


def test_rollback_to_a_version_that_is_gone_says_so(decided, client: RegistryClient) -> None:
    decided(1)
    decided(2)
    client.delete_version(client.get("music", 1), Lease())
    with pytest.raises(
        InputError, match=r"Version 1, the champion before version 2, is of no use.*no version or alias '1'"
    ):
        rollback(client, "music", "bad")


def test_a_person_promotes_what_was_held(decided, client: RegistryClient) -> None:
    decided(1)
    decided(2, "hold")
    done = promote(client, "music", 2, "the test users are not typical")
    assert (done.kind, done.before, done.after, done.forced) == ("promotion", 1, 2, None)
    assert champion(client) == 2
    assert "forced" not in client.get("music", 2).tags
    with pytest.raises(InputError, match="Version 2 of 'music' is the champion already"):
        promote(client, "music", "champion", "again")


@pytest.mark.parametrize(
    ("outcome", "in_sample", "sentence"),
    [("reject", False, "the gate rejected it"), ("hold", True, "its numbers are in-sample")],
)
def test_what_the_gate_forbids_is_only_forced_and_says_so_for_ever(
    decided, client: RegistryClient, outcome: str, in_sample: bool, sentence: str
) -> None:
    decided(1)
    decided(2, outcome, in_sample)
    with pytest.raises(InputError, match=f"Version 2 of 'music' is not promoted: {sentence}.*Give --force"):
        promote(client, "music", 2, "I like it")
    assert champion(client) == 1
    done = promote(client, "music", 2, "I like it", force="demo for the board")
    assert (done.forced, champion(client)) == ("demo for the board", 2)
    assert done.decision is not None
    assert done.decision.forced == "demo for the board"
    rollback(client, "music", "the demo is over")
    assert client.get("music", 2).tags["forced"] == "demo for the board"
    assert [record.forced for record in records(client, "music")] == [None, None, "demo for the board", None]
    decision = decision_of(client.get("music", 2))
    assert decision is not None
    assert (decision.outcome, decision.forced) == (outcome, None)


def test_a_version_about_which_nothing_was_decided_has_to_be_forced(
    decided, client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided(1)
    with monkeypatch.context() as patch:
        patch.setattr("registry.register._decide", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            decided(2)
    with pytest.raises(InputError, match="is not promoted: nothing was decided about it"):
        promote(client, "music", 2, "no time")
    assert promote(client, "music", 2, "no time", "the gate does not answer").after == 2


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("why", "sentence"), [("  ", "The reason is empty"), ("x" * 4001, "The reason has 4001 characters")]
)
def test_a_reason_is_needed_and_fits(decided, client: RegistryClient, why: str, sentence: str) -> None:
    decided(1)
    decided(2)
    with pytest.raises(InputError, match=sentence):
        rollback(client, "music", why)
    assert (champion(client), len(records(client, "music"))) == (2, 2)


def test_a_champion_moved_by_something_else_is_noted_and_counts(decided, client: RegistryClient) -> None:
    decided(1)
    decided(2)
    decided(3, "hold")
    client.point("champion", client.get("music", 3), Lease())
    assert rollback(client, "music", "who did that?").after == 2
    outside = records(client, "music")[3]
    assert (outside.kind, outside.state, outside.before, outside.after) == ("outside", "done", 2, 3)
    assert champions(records(client, "music")) == {1, 2, 3}


def test_a_removed_alias_is_noted_and_rollback_brings_the_champion_back(decided, client: RegistryClient) -> None:
    decided(1)
    client._client.delete_registered_model_alias("music", "champion")
    assert rollback(client, "music", "somebody removed the alias").after == 1
    assert [(record.kind, record.after) for record in records(client, "music")[1:]] == [
        ("outside", None),
        ("rollback", 1),
    ]


def test_many_at_once_leave_one_champion_and_a_lineage_without_gaps(decided, client: RegistryClient) -> None:
    for number in (1, 2, 3):
        decided(number)

    def move(turn: int) -> None:
        promote(RegistryClient(client.uri), "music", 1 + turn % 3, f"turn {turn}")

    with ThreadPoolExecutor(4) as pool:
        failures = [future.exception() for future in [pool.submit(move, turn) for turn in range(8)]]
    assert all(failure is None or "champion already" in str(failure) for failure in failures)
    moves = [record for record in records(client, "music") if record.moves_champion]
    assert [record.before for record in moves] == [None, *(record.after for record in moves[:-1])]
    assert {record.state for record in moves} == {"done"}
    assert moves[-1].after == champion(client)


def test_a_lost_bundle_does_not_stop_a_rollback_from_it(decided, client: RegistryClient) -> None:
    decided(1)
    decided(2)
    with client.bundles.folder(client.get("music", 2)) as folder:
        shutil.rmtree(folder)
    assert rollback(client, "music", "its files are gone").after == 1


def test_a_crash_leaves_the_lineage_as_it_was(decided, client: RegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 3):
        decided(number)
    with monkeypatch.context() as patch:
        patch.setattr(RegistryClient, "point", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            rollback(client, "music", "bad")
    assert rollback(client, "music", "bad").after == 2
    assert [record.state for record in records(client, "music")[3:]] == ["abandoned", "done"]
    assert rollback(client, "music", "bad").after == 1


def moved(before: int | None, after: int, kind: str = "decision", state: str = "done") -> AuditRecord:
    return AuditRecord(kind, after, before, after, "", "", state=state)  # type: ignore[arg-type]


@given(st.lists(st.one_of(st.integers(1, 5), st.none()), max_size=12))
def test_the_lineage_is_a_stack_of_promotions(steps: list[int | None]) -> None:
    """A number promotes, none rolls back; the lineage is the stack of what was not taken back."""
    lineage: tuple[int, ...] = ()
    stack: list[int] = []
    for step in steps:
        if step is not None and stack[-1:] != [step]:
            lineage = extended(lineage, moved(stack[-1] if stack else None, step))
            stack.append(step)
        elif step is None and len(stack) > 1:
            champion = stack.pop()
            assert next(number for number in reversed(lineage) if number != champion) == stack[-1]
            lineage = extended(lineage, moved(champion, stack[-1], "rollback"))
        assert list(lineage) == stack


def test_a_rollback_reads_the_same_lineage_after_a_hundred_promotions() -> None:
    lineage: tuple[int, ...] = ()
    for number in range(1, 150):
        lineage = extended(lineage, moved(number - 1, number))
    assert (len(lineage), lineage[-2:]) == (100, (148, 149))


def test_a_move_that_was_abandoned_counts_nowhere() -> None:
    past = [moved(None, 1), moved(1, 2, state="abandoned"), moved(1, 3, state="intent")]
    assert champions(past) == {1, 3}
