from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from registry.__main__ import app
from registry.register import register


def lines(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.output


def test_list_shows_every_version_and_the_champion(make_bundle, uri: str) -> None:
    register(make_bundle(quality=2.0), "music", uri)
    register(make_bundle(quality=0.6), "music", uri)
    register(make_bundle(), "speech", uri)
    shown = lines("list", "--uri", uri)
    assert "music" in shown
    assert "speech" in shown
    rows = [line for line in lines("list", "--name", "music", "--uri", uri).splitlines() if "advanced" in line]
    assert ["champion" in row for row in rows] == [False, True]
    assert "hold" in rows[0]
    assert "recall@5 1.0000" in rows[1]


def test_show_tells_why(make_bundle, uri: str) -> None:
    done = register(make_bundle(quality=2.0), "music", uri)
    for which in ("1", "champion"):
        shown = lines("show", which, "--name", "music", "--uri", uri)
        assert "Promoted: it beats popularity" in shown
        assert done.bundle_digest in "".join(shown.split())
        assert '"against_popularity"' in shown


def test_an_empty_registry_says_so(uri: str) -> None:
    assert "Nothing is registered" in lines("list", "--uri", uri)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "3", "--uri", "sqlite:///absent.db"], "There is no registry at sqlite:///"),
        (["list", "--uri", "ftp://x"], "allowed are sqlite:///path and http(s)://host"),
    ],
)
def test_an_error_is_a_sentence_without_a_traceback(arguments: list[str], said: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "registry", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
