from __future__ import annotations

import logging
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from data.errors import InputError
from registry.backend.client import RegistryClient
from registry.backend.lock import ServerLock, _here, locked
from registry.backend.version import Version


@pytest.fixture
def client(uri: str) -> RegistryClient:
    return RegistryClient(uri)


def left_behind(client: RegistryClient, host: str, pid: int, number: str | None = "1") -> str:
    tags = {"host": host, "pid": str(pid)} | ({} if number is None else {"number": number})
    return client.runs.open("music/turns", "lock", tags).run_id


def test_one_at_a_time_and_everybody_gets_the_lock(client: RegistryClient) -> None:
    inside, most, served = [], [], []

    def work(number: int) -> None:
        with ServerLock(RegistryClient(client.uri), "music").held():
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            inside.remove(number)
            served.append(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert (max(most), sorted(served)) == (1, list(range(8)))
    assert client.runs.find("music/turns") == []


def test_models_do_not_wait_for_each_other(client: RegistryClient) -> None:
    with ServerLock(client, "music").held(), ServerLock(client, "speech").held(wait=False):
        pass


def test_without_waiting_a_held_lock_is_an_error(client: RegistryClient) -> None:
    refused = pytest.raises(InputError, match="Another process is changing the registry at")
    with ServerLock(client, "music").held(), refused, ServerLock(client, "music").held(wait=False):
        pytest.fail("two at once")
    with ServerLock(client, "music").held(wait=False):
        pass


@pytest.mark.parametrize("number", ["1", None])
def test_a_dead_process_of_this_machine_is_not_waited_for(
    client: RegistryClient, caplog: pytest.LogCaptureFixture, number: str | None
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left_behind(client, _here(), dead.pid, number)
    with caplog.at_level(logging.WARNING), ServerLock(client, "music").held(wait=False):
        assert "is dead; its lock is removed" in caplog.text


def test_another_machine_is_waited_for_until_its_lease_ends(
    client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(client, "elsewhere", 1)
    with pytest.raises(InputError, match="Another process is changing"), ServerLock(client, "music").held(wait=False):
        pass
    monkeypatch.setattr("registry.backend.lock.LEASE_SECONDS", 0.3)
    monkeypatch.setattr("registry.backend.lock.POLL_SECONDS", 0.05)
    start = time.monotonic()
    with ServerLock(client, "music").held():
        assert time.monotonic() - start > 0.3


def test_a_slow_process_does_not_go_on_after_its_lock_was_taken_over(client: RegistryClient) -> None:
    with ServerLock(client, "music").held() as lease:
        lease.check()
        for request in client.runs.find("music/turns"):
            client.runs.delete(request.run_id)
        with pytest.raises(InputError, match="Another process took over the work on 'music'"):
            lease.check()


def test_what_a_lost_lock_covers_is_not_changed(client: RegistryClient) -> None:
    version = Version("music", 1, "", "", 0, {})
    with ServerLock(client, "music").held() as lease:
        for request in client.runs.find("music/turns"):
            client.runs.delete(request.run_id)
        for change in (partial(client.point, "champion"), client.delete_version):
            with pytest.raises(InputError, match="Another process took over the work on 'music'"):
                change(version, lease)


def test_a_local_registry_is_locked_by_a_file(client: RegistryClient) -> None:
    with locked(client, "music") as lease:
        lease.check()
        busy = pytest.raises(InputError, match=f"Another process is changing the registry at {client.address}")
        with busy, locked(RegistryClient(client.uri), "music", wait=False):
            pytest.fail("two at once")
