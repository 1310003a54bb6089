from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import InputError
from registry.backend.client import RegistryClient
from registry.backend.lock import Lease
from registry.backend.version import Version
from registry.champion import promote, records, rollback
from registry.loading import load
from registry.retention import prune, removable


def numbers(removed: list) -> list[int]:
    return [removal.version.version for removal in removed]


def test_old_versions_go_with_their_files_and_champions_of_any_time_stay(decided, client: RegistryClient) -> None:
    for number, outcome in enumerate(("promote", "hold", "promote", "reject", "hold", "hold"), start=1):
        decided(number, outcome)
    rollback(client, "music", "bad")
    chosen = removable(client, "music", 1, 0)
    assert numbers(chosen) == [2, 4, 5]
    assert all(removal.num_bytes > 10_000 for removal in chosen)
    runs = {number: client.get("music", number).run_id for number in client.numbers("music")}
    assert numbers(prune(client, "music", 1, 0)) == [2, 4, 5]
    assert client.numbers("music") == {1, 3, 6}
    assert client.database is not None
    left = {path.name for path in (client.database.parent / "artifacts").iterdir()}
    assert left == {runs[1], runs[3], runs[6]}
    assert [(entry.kind, entry.version) for entry in records(client, "music")[-3:]] == [
        ("deletion", n) for n in (2, 4, 5)
    ]
    for number in (1, 3, 6):
        assert load(number, "music", client.uri).num_users == 40
    assert decided(7).version == 7
    assert promote(client, "music", 3, "a deleted version does not stop the history").before == 7


def test_young_versions_stay_whatever_their_number(decided, client: RegistryClient) -> None:
    for number in (1, 2, 3):
        decided(number, "hold")
    assert prune(client, "music", 1, 1) == []
    assert client.numbers("music") == {1, 2, 3}


def test_what_has_an_alias_stays(decided, client: RegistryClient) -> None:
    for number in (1, 2, 3):
        decided(number, "hold")
    client.point("canary", client.get("music", 1), Lease())
    assert numbers(prune(client, "music", 1, 0)) == [2]


def test_a_champion_from_before_there_were_records_stays(decided, client: RegistryClient) -> None:
    for number in (1, 2, 3):
        decided(number, "promote" if number == 1 else "hold")
    for run in client.runs.find("music/decisions"):
        client.runs.delete(run.run_id)
    client.point("champion", client.get("music", 3), Lease())
    assert numbers(prune(client, "music", 1, 0)) == [2]
    assert [record.kind for record in records(client, "music")] == ["outside", "deletion"]


def test_a_version_with_an_open_record_stays(decided, client: RegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    decided(1)
    for number in (2, 3):
        decided(number, "hold")
    with monkeypatch.context() as patch:
        patch.setattr(RegistryClient, "point", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            promote(client, "music", 2, "it is needed")
    assert records(client, "music")[-1].state == "intent"
    assert removable(client, "music", 1, 0) == []
    assert numbers(prune(client, "music", 1, 0)) == [2]  # reconciled first: it was never moved


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("keep", "days", "sentence"), [(0, 1, "--keep is 0"), (1, -1, "--older-than is -1")])
def test_what_cannot_be_asked(decided, client: RegistryClient, keep: int, days: float, sentence: str) -> None:
    decided(1)
    with pytest.raises(InputError, match=sentence):
        removable(client, "music", keep, days)


class SizedByNumber:
    def sizes(self, version: Version) -> dict[str, int]:
        return {"file": version.version}


class Aged(RegistryClient):
    """Versions of given ages."""

    def __init__(self, ages: list[float]) -> None:
        self._ages, self.bundles = ages, SizedByNumber()  # type: ignore[assignment]

    def versions(self, name: str) -> list[Version]:
        now_ms = 1_000 * 86_400_000
        return [Version(name, n, "", "", int(now_ms - age * 86_400_000), {}) for n, age in enumerate(self._ages, 1)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ages=st.lists(st.floats(0, 100), max_size=8),
    champions=st.sets(st.integers(1, 8)),
    keep=st.integers(1, 9),
    days=st.floats(0, 100),
)
def test_only_what_is_beyond_count_and_age_and_never_was_champion_goes(
    monkeypatch: pytest.MonkeyPatch, ages: list[float], champions: set[int], keep: int, days: float
) -> None:
    monkeypatch.setattr("registry.retention._protected", lambda *_: champions)
    monkeypatch.setattr("registry.retention.time.time", lambda: 1_000 * 86_400.0)
    gone = set(numbers(removable(Aged(sorted(ages, reverse=True)), "music", keep, days)))
    for number, age in enumerate(sorted(ages, reverse=True), 1):
        beyond_count, clearly_older = number <= len(ages) - keep, age > days + 1e-6
        if number in gone:
            assert beyond_count
            assert age >= days - 1e-6
            assert number not in champions
        elif beyond_count and number not in champions:
            assert not clearly_older
