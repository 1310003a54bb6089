from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data.errors import InputError
from registry.__main__ import app
from registry.audit_log import records
from registry.backend.client import RegistryClient
from registry.backend.runs import Runs
from registry.register import attach, register


def lines(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    tables = [line for line in done.output.splitlines() if line.startswith(" ")]
    assert max(map(len, tables), default=0) <= 80
    return done.output


def refusal(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 1
    return str(done.exception)


def test_list_shows_every_version_and_the_champion(make_bundle, uri: str) -> None:
    register(make_bundle(quality=2.0), "music", uri)
    register(make_bundle(quality=0.6), "music", uri)
    register(make_bundle(), "speech", uri)
    shown = lines("list", "--uri", uri)
    assert "music" in shown
    assert "speech" in shown
    rows = [line for line in lines("list", "--name", "music", "--uri", uri).splitlines() if "advanced" in line]
    assert ["champion" in row for row in rows] == [False, True]
    assert "reject" in rows[0]
    assert "recall@5 1.0000" in rows[1]


def test_show_tells_why(make_bundle, uri: str) -> None:
    done = register(make_bundle(quality=2.0), "music", uri)
    for which in ("1", "champion"):
        shown = lines("show", which, "--name", "music", "--uri", uri)
        assert "Promoted: it beats popularity" in shown
        assert done.bundle_digest in "".join(shown.split())
        assert "against_popularity" in shown


def test_a_night_that_goes_wrong_is_rolled_back_and_the_history_tells(make_bundle, uri: str) -> None:
    where = ("--name", "music", "--uri", uri)
    register(make_bundle(quality=2.0), "music", uri)
    register(make_bundle(trainer="simple"), "music", uri)
    assert "Give --force" in refusal("promote", "2", "--why", "it looks good", *where)
    forced = lines("promote", "2", "--why", "it looks good", "--force", "demo", *where)
    assert forced == "The champion of music is version 2; it was 1, forced: demo.\n"
    assert "forced" in lines("list", *where)
    assert lines("rollback", "--why", "unhappy listeners", *where) == "The champion of music is version 1; it was 2.\n"
    shown = " ".join(lines("history", *where).split())
    for words in ("rollback", "unhappy", "2 → 1", "promotion", "Forced: demo", "1 → 2", "none → 1"):
        assert words in shown
    shown = lines("show", "2", *where)
    assert "forced" in shown
    assert "unhappy" in shown
    assert "nothing to go back to" in refusal("rollback", "--why", "again", *where)
    assert "no former champion" in refusal("rollback", "--why", "again", "--to", "1", *where)


def test_compare_shows_both_and_what_the_gate_finds(make_bundle, uri: str) -> None:
    where = ("--name", "music", "--uri", uri)
    register(make_bundle(quality=2.0), "music", uri)
    register(make_bundle(quality=0.6), "music", uri)
    shown = lines("compare", "2", "1", *where)
    assert "version 2" in shown
    recall = next(row for row in shown.splitlines() if "recall@5" in row)
    assert recall.count("[") == 2
    assert "If 2 were new and 1 champion" in shown
    assert "no version or alias '7'" in refusal("compare", "2", "7", *where)


def test_verify_says_what_was_checked_and_names_what_is_wrong(make_bundle, uri: str) -> None:
    register(make_bundle(quality=2.0), "music", uri)
    register(make_bundle(quality=0.6), "music", uri)
    assert lines("verify", "--uri", uri).count("lists of 40 users scored again") == 2
    client = RegistryClient(uri)
    with client.bundles.folder(client.get("music", 2)) as folder:
        (folder / "seen.parquet").unlink()
    assert "1: sound" in lines("verify", "1", "--name", "music", "--uri", uri)
    done = CliRunner().invoke(app, ["verify", "--uri", uri])
    assert (done.exit_code, str(done.exception)) == (1, "Not sound: music 2.")
    assert "seen.parquet is missing" in done.output


def test_prune_says_what_it_would_free_and_frees_it(make_bundle, uri: str) -> None:
    for quality in (2.0, 0.6, 0.7):
        register(make_bundle(quality=quality), "music", uri)
    command = ("prune", "--keep", "1", "--older-than", "0", "--name", "music", "--uri", uri)
    assert re.match(r"Would delete versions of music: 2 \(\d+\.\d kB\)", lines(*command, "--dry-run"))
    assert RegistryClient(uri).numbers("music") == {1, 2, 3}
    assert lines(*command).startswith("Deleted versions of music: 2 (")
    assert RegistryClient(uri).numbers("music") == {1, 3}


def test_a_list_closes_what_a_crash_left_open(make_bundle, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Runs, "close", _crash)
        with pytest.raises(KeyboardInterrupt):
            register(make_bundle(quality=2.0), "music", uri)
    assert records(RegistryClient(uri), "music")[0].state == "intent"
    lines("list", "--uri", uri)
    assert records(RegistryClient(uri), "music")[0].state == "done"
    assert "after a" in lines("history", "--name", "music", "--uri", uri)


def _crash(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_report_is_attached_beside_the_bundle(make_bundle, uri: str, tmp_path: Path) -> None:
    done = register(make_bundle(), "music", uri)
    report = tmp_path / "report.html"
    with pytest.raises(InputError, match=r"There is no file .*report\.html to attach to version 1 of 'music'"):
        attach("music", 1, report, uri)
    report.write_text("<p>better</p>")
    attach("music", 1, report, uri)
    assert (
        tmp_path / "registry" / "artifacts" / done.run_id / "artifacts" / "report.html"
    ).read_text() == "<p>better</p>"


def test_an_empty_registry_says_so(uri: str) -> None:
    assert "Nothing is registered" in lines("list", "--uri", uri)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "3", "--uri", "sqlite:///absent.db"], "There is no registry at sqlite:///"),
        (["list", "--uri", "ftp://x"], "allowed are sqlite:///path and http(s)://host"),
    ],
)
def test_an_error_is_a_sentence_without_a_traceback(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "registry", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
