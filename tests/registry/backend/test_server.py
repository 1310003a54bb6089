"""The same registry behind an MLflow server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data.errors import InputError
from registry.backend.client import RegistryClient, exists
from registry.champion import promote, records, rollback
from registry.loading import load
from registry.register import attach, register
from registry.retention import prune
from registry.verification import verify_version

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(empty_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tmp_path = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "server.db").write_bytes(empty_registry.read_bytes())
    options = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        str(tmp_path / "art"),
    ]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *options]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **quiet}, start_new_session=True)
        try:
            _wait_for(f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, 15)
            process.wait(timeout=30)


def _wait_for(url: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"{url} did not answer within a minute")


def test_register_load_and_promote(make_bundle, server: str) -> None:
    first = register(make_bundle(quality=2.0), "music", server)
    assert first.is_champion
    assert register(make_bundle(quality=0.6), "music", server).champion == 1
    assert register(make_bundle(quality=2.0), "music", server) == first
    assert load("champion", "music", server).recommend("u00", 3) == load(1, "music", server).recommend("u00", 3)
    assert exists("music", 1, server, run_id=first.run_id)
    assert not exists("music", 1, server, run_id="another")
    assert not exists("music", 9, server)
    assert not exists("other", 1, server)
    with pytest.raises(InputError, match="has no version or alias '9'; it has 1, 2, champion"):
        load(9, "music", server)


def test_history_rollback_and_retention(make_bundle, server: str, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("<p>better</p>")
    for quality in (1.0, 2.0, 0.6, 0.7):
        register(make_bundle(quality=quality), "speech", server)
    client = RegistryClient(server)
    attach("speech", 1, report, server)
    assert [entry.path for entry in client._client.list_artifacts(client.get("speech", 1).run_id)] == [
        "bundle",
        "report.html",
    ]
    before = client.aliases("speech")["champion"]
    promote(client, "speech", 4, "it is needed", force="as the gate may have rejected it")
    assert rollback(client, "speech", "bad lists").after == before
    assert verify_version(client, client.get("speech", "champion")).problem is None
    run = client.get("speech", 3).run_id
    assert [removal.version.version for removal in prune(client, "speech", 1, 0)][-1:] == [3]
    assert 3 not in client.numbers("speech")
    assert client._client.list_artifacts(run) == []
    assert load(4, "speech", server).num_users == 40
    assert {record.state for record in records(client, "speech")} == {"done"}


def test_two_at_once_change_the_model_one_after_the_other(make_bundle, server: str) -> None:
    bundle, other = make_bundle(quality=1.0), make_bundle(quality=2.0)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda path: register(path, "noise", server), [bundle, other, bundle, other]))
    assert sorted(entry.version for entry in done) == [1, 1, 2, 2]
    client = RegistryClient(server)
    moves = [record for record in records(client, "noise") if record.moves_champion]
    assert [record.before for record in moves] == [None, *(record.after for record in moves[:-1])]
    assert moves[-1].after == client.aliases("noise")["champion"]
    assert client.runs.find("noise/turns") == []
