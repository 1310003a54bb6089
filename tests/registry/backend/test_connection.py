from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from data.errors import InputError
from registry.backend.client import RegistryClient, exists
from registry.backend.connection import Connection


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URI", "USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)


def test_a_database_that_is_none_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 500)
    with pytest.raises(InputError, match=r"database .*mlflow\.db cannot be used \(file is not a database\)"):
        exists("music", 1, f"sqlite:///{tmp_path}/mlflow.db")
    assert not exists("music", 1, f"sqlite:///{tmp_path}/none.db")


class _Guarded(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        expected = "Basic " + base64.b64encode(b"ann:secret").decode()
        self.send_response(200 if self.headers.get("Authorization") == expected else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def guarded() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), _Guarded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_guarded_server_gets_the_credentials_of_the_environment(
    guarded: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"cannot be reached \(HTTP Error 401: Unauthorized\)"):
        Connection(f"http://127.0.0.1:{guarded.server_port}")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    Connection(f"http://127.0.0.1:{guarded.server_port}")


def test_a_server_that_does_not_answer_is_an_error_at_once_that_keeps_the_password_secret() -> None:
    sentence = (
        r"^The MLflow server at http://127\.0\.0\.1:9 cannot be reached \(\[Errno \d+\] Connection refused\); start it"
    )
    with pytest.raises(InputError, match=sentence):
        Connection("http://me:secret@127.0.0.1:9")


def test_a_server_that_stops_answering_is_an_error_that_keeps_the_password_secret(
    guarded: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client = RegistryClient(f"http://ann:secret@127.0.0.1:{guarded.server_port}")
    guarded.shutdown()
    guarded.server_close()
    with pytest.raises(InputError, match=r"cannot be reached \(\[Errno \d+\]") as refused:
        client.names()
    assert "secret" not in str(refused.value)
