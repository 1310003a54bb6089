from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import InputError
from registry.backend.location import resolve_uri, without_credentials


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


def test_user_and_password_are_neither_shown_nor_stored() -> None:
    assert without_credentials("https://me:secret@models.example:5000/x") == "https://models.example:5000/x"
    assert without_credentials("sqlite:////home/me/mlflow.db") == "sqlite:////home/me/mlflow.db"
