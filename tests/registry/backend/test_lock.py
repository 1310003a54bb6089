from __future__ import annotations

import logging
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from data.errors import InputError
from registry.backend.client import RegistryClient
from registry.backend.lock import Turn, _here


@pytest.fixture
def store(uri: str) -> RegistryClient:
    return RegistryClient(uri)


def left_behind(store: RegistryClient, host: str, pid: int, number: str | None = "1") -> str:
    tags = {"host": host, "pid": str(pid)} | ({} if number is None else {"number": number})
    return store.open_run("music/turns", "turn", tags).run_id


def test_one_at_a_time_and_everybody_gets_a_turn(store: RegistryClient) -> None:
    inside, most, served = [], [], []

    def work(number: int) -> None:
        with Turn(RegistryClient(store.uri), "music").taken():
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            inside.remove(number)
            served.append(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert (max(most), sorted(served)) == (1, list(range(8)))
    assert store.runs("music/turns") == []


def test_models_do_not_wait_for_each_other(store: RegistryClient) -> None:
    with Turn(store, "music").taken(), Turn(store, "speech").taken(wait=False):
        pass


def test_who_does_not_want_to_wait_is_told(store: RegistryClient) -> None:
    said = pytest.raises(InputError, match="Another process is changing the registry at")
    with Turn(store, "music").taken(), said, Turn(store, "music").taken(wait=False):
        pytest.fail("two at once")
    with Turn(store, "music").taken(wait=False):
        pass


@pytest.mark.parametrize("number", ["1", None])
def test_a_dead_process_of_this_machine_is_not_waited_for(
    store: RegistryClient, caplog: pytest.LogCaptureFixture, number: str | None
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left_behind(store, _here(), dead.pid, number)
    with caplog.at_level(logging.WARNING), Turn(store, "music").taken(wait=False):
        assert "is dead; its turn is over" in caplog.text


def test_another_machine_is_waited_for_until_its_lease_ends(
    store: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(store, "elsewhere", 1)
    with pytest.raises(InputError, match="Another process is changing"), Turn(store, "music").taken(wait=False):
        pass
    monkeypatch.setattr("registry.backend.lock.LEASE_SECONDS", 0.3)
    monkeypatch.setattr("registry.backend.lock.POLL_SECONDS", 0.05)
    start = time.monotonic()
    with Turn(store, "music").taken():
        assert time.monotonic() - start > 0.3


def test_a_slow_process_does_not_go_on_after_its_turn_was_taken_away(store: RegistryClient) -> None:
    with Turn(store, "music").taken() as turn:
        turn.check()
        for ticket in store.runs("music/turns"):
            store.forget_run(ticket.run_id)
        with pytest.raises(InputError, match="Another process took over the work on 'music'"):
            turn.check()
