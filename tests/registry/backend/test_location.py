from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from data.errors import InputError
from registry.backend.location import check_server, exists, resolve_uri, without_credentials


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URI", "USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)


def test_the_default_is_a_file_under_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_uri(home=tmp_path) == f"sqlite:///{tmp_path}/artifacts/mlflow/mlflow.db"
    monkeypatch.setenv("SONGGRAPH_HOME", str(tmp_path))
    assert resolve_uri() == f"sqlite:///{tmp_path}/artifacts/mlflow/mlflow.db"


def test_the_argument_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://models.example/")
    assert resolve_uri() == "http://models.example"
    assert resolve_uri("sqlite:///other.db", tmp_path) == f"sqlite:///{tmp_path}/other.db"
    assert resolve_uri("sqlite:////data/other.db", tmp_path) == "sqlite:////data/other.db"


def test_another_kind_of_address_is_refused() -> None:
    with pytest.raises(InputError, match="The registry's address is 'mlruns'; allowed are"):
        resolve_uri("mlruns")


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
def guarded() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Guarded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_guarded_server_gets_the_credentials_of_the_environment(
    guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"cannot be reached \(HTTP Error 401: Unauthorized\)"):
        check_server(guarded)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    check_server(guarded)


def test_user_and_password_are_neither_shown_nor_stored() -> None:
    assert without_credentials("https://me:secret@models.example:5000/x") == "https://models.example:5000/x"
    assert without_credentials("sqlite:////home/me/mlflow.db") == "sqlite:////home/me/mlflow.db"
    with pytest.raises(InputError) as refused:
        check_server("http://me:secret@127.0.0.1:9")
    assert "secret" not in str(refused.value)
