from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import registry.register
from data.errors import InputError
from registry.backend.client import RegistryClient, exists
from registry.backend.lock import Lease
from registry.bundle.assemble import assemble_bundle
from registry.gate.gate_config import GateConfig
from registry.loading import load
from registry.register import decision_of, register


def test_a_registered_model_is_loaded_and_answers(make_bundle, uri: str) -> None:
    bundle = make_bundle()
    done = register(bundle, "music", uri)
    assert (done.version, done.is_champion, done.decision.outcome) == (1, True, "promote")
    shutil.rmtree(bundle)
    recommender = load("champion", "music", uri)
    assert recommender.recommend("u03", 4) == load(1, "music", uri).recommend("u03", 4)
    assert recommender.manifest.digest == done.bundle_digest


def test_mlflow_shows_params_epochs_and_summary(make_bundle, uri: str) -> None:
    done = register(make_bundle(), "music", uri, params={"log": {"preset": "small"}})
    client = RegistryClient(uri)
    run = client._client.get_run(done.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["training_config.lr"] == "0.01"
    assert run.data.params["log.preset"] == "small"
    losses = client._client.get_metric_history(done.run_id, "loss")
    assert [(entry.step, entry.value) for entry in losses] == [(1, 0.7), (2, 0.5)]
    shown = run.data.metrics
    assert shown["test_recall_at_5_low"] <= shown["test_recall_at_5"] <= shown["test_recall_at_5_high"]
    assert shown["test_recall_at_5"] > shown["popularity_test_recall_at_5"]


def test_the_same_bundle_is_registered_once(make_bundle, uri: str) -> None:
    bundle = make_bundle()
    one, two = register(bundle, "music", uri), register(bundle, "music", uri)
    assert one == two
    assert len(RegistryClient(uri).versions("music")) == 1
    assert register(bundle, "other", uri).version == 1


def test_a_worse_model_is_registered_but_not_champion(make_bundle, uri: str) -> None:
    register(make_bundle(quality=2.0), "music", uri)
    done = register(make_bundle(quality=0.6), "music", uri)
    assert (done.version, done.champion, done.is_champion) == (2, 1, False)
    assert RegistryClient(uri).aliases("music") == {"champion": 1}
    decision = decision_of(RegistryClient(uri).get("music", 2))
    assert decision == done.decision
    assert decision is not None
    assert "worse than champion 1" in decision.reason


def test_an_old_champion_registered_again_does_not_come_back(make_bundle, uri: str, lenient: GateConfig) -> None:
    old = make_bundle(quality=0.8)
    register(old, "music", uri)
    assert register(make_bundle(quality=2.0), "music", uri, gate=lenient).is_champion
    again = register(old, "music", uri)
    assert (again.version, again.champion) == (1, 2)


def test_an_alias_that_was_moved_back_by_hand_stays(make_bundle, uri: str, lenient: GateConfig) -> None:
    better = make_bundle(quality=2.0)
    register(make_bundle(quality=1.0), "music", uri)
    assert register(better, "music", uri, gate=lenient).champion == 2
    client = RegistryClient(uri)
    client.point("champion", client.get("music", 1), Lease())
    assert register(better, "music", uri).champion == 1


def test_the_log_is_compared_with_the_last_five_that_have_a_profile(
    make_bundle, make_parts, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(8):
        parts = make_parts(quality=1.0 + number)
        profile = {"plays": 1000 + number, "pairs": 240, "users": 40, "songs": 30, "rejected_share": 0.0}
        parts["profile"].write_text(json.dumps(profile))
        if number == 5:
            del parts["profile"]
        assemble_bundle(tmp_path / f"bundle{number}", **parts)
        register(tmp_path / f"bundle{number}", "music", uri)
    client = RegistryClient(uri)
    with client.bundles.folder(client.get("music", 4)) as folder:
        (folder / "profile.json").write_text("{}")
    seen = []
    plain = registry.register.decide
    monkeypatch.setattr(
        registry.register, "decide", lambda *given, **named: (seen.append(given[3]), plain(*given, **named))[1]
    )
    with caplog.at_level(logging.WARNING):
        register(make_bundle(quality=12.0), "music", uri)
    assert [profile["plays"] for profile in seen[0]] == [1007, 1006, 1004, 1002, 1001]
    assert "The profile of version 4 of music is not compared with" in caplog.text


def test_in_sample_models_leave_no_champion(make_bundle, uri: str) -> None:
    done = register(make_bundle(trainer="simple"), "music", uri)
    assert done.champion is None
    with pytest.raises(InputError, match="The model 'music' has no version or alias 'champion'; it has 1"):
        load("champion", "music", uri)


@pytest.mark.parametrize("step", ["_log", "_ensure_model", "note", "point"])
def test_a_crash_at_any_step_is_completed_by_the_next_run(
    make_bundle, uri: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    bundle = make_bundle()

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RegistryClient, step, crash)
        with pytest.raises(KeyboardInterrupt):
            register(bundle, "music", uri)
    done = register(bundle, "music", uri)
    assert (done.version, done.is_champion) == (1, True)
    client = RegistryClient(uri)
    assert len(client._client.search_runs([client.experiment("music")])) == 1
    assert len(client._client.get_metric_history(done.run_id, "loss")) == 2


def test_two_at_once_become_two_versions(make_bundle, uri: str) -> None:
    bundles = [make_bundle(quality=1.0 + step) for step in range(3)]
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda bundle: register(bundle, "music", uri), bundles))
    assert sorted(entry.version for entry in done) == [1, 2, 3]
    assert load("champion", "music", uri).num_users == 40


def test_a_damaged_champion_is_refused_and_not_replaced_blindly(
    make_bundle, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    register(make_bundle(quality=0.8), "music", uri)
    client = RegistryClient(uri)
    with client.bundles.folder(client.get("music", 1)) as folder:
        (folder / "seen.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"seen\.parquet is damaged"):
        load("champion", "music", uri)
    with caplog.at_level(logging.WARNING):
        done = register(make_bundle(quality=2.0), "music", uri)
    assert done.champion == 1
    assert "champion 1 cannot be compared with" in done.decision.reason
    assert "seen.parquet is damaged" in caplog.text


def test_another_versions_bundle_is_refused(make_bundle, uri: str) -> None:
    for quality in (0.8, 2.0):
        register(make_bundle(quality=quality), "music", uri)
    client = RegistryClient(uri)
    with (
        client.bundles.folder(client.get("music", 1)) as first,
        client.bundles.folder(client.get("music", 2)) as second,
    ):
        shutil.rmtree(first)
        shutil.copytree(second, first)
    with pytest.raises(InputError, match="The bundle of version 1 of 'music' is another version's"):
        load(1, "music", uri)


@pytest.mark.parametrize("damage", ["change", "delete", "delete all"])
def test_registering_again_restores_damaged_files(bundle: Path, uri: str, damage: str) -> None:
    before = register(bundle, "music", uri)
    client = RegistryClient(uri)
    with client.bundles.folder(client.get("music", 1)) as folder:
        if damage == "change":
            (folder / "seen.parquet").write_bytes(b"PAR1")
        elif damage == "delete":
            (folder / "seen.parquet").unlink()
        else:
            shutil.rmtree(folder)
    assert exists("music", 1, uri) == (damage == "change")
    assert register(bundle, "music", uri) == before
    assert load("champion", "music", uri).num_users == 40


def test_a_registry_that_was_moved_still_loads(make_bundle, uri: str, tmp_path: Path) -> None:
    register(make_bundle(), "music", uri)
    shutil.move(tmp_path / "registry", tmp_path / "elsewhere")
    assert load("champion", "music", f"sqlite:///{tmp_path / 'elsewhere' / 'mlflow.db'}").num_songs == 30


def test_what_does_not_exist_is_named_beside_what_does(make_bundle, uri: str, tmp_path: Path) -> None:
    register(make_bundle(), "music", uri)
    with pytest.raises(InputError, match="has no version or alias '9'; it has 1, champion"):
        load(9, "music", uri)
    with pytest.raises(InputError, match="has no version or alias 'best'; it has 1, champion"):
        load("best", "music", uri)
    with pytest.raises(InputError, match=r"There is no model named 'musik' at .*; there are music\."):
        load("champion", "musik", uri)
    with pytest.raises(InputError, match="There is no registry at sqlite:///"):
        load("champion", "music", f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_damaged_database_is_an_error_in_words(make_bundle, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 500)
    with pytest.raises(InputError, match=r"The registry's database .*mlflow\.db cannot be used"):
        register(make_bundle(), "music", f"sqlite:///{tmp_path}/mlflow.db")


def test_a_server_that_is_not_there_is_an_error_in_words(make_bundle) -> None:
    with pytest.raises(InputError, match=r"The MLflow server at http://127\.0\.0\.1:9 cannot be reached"):
        register(make_bundle(), "music", "http://127.0.0.1:9")


def test_no_pickle_is_written(make_bundle, uri: str, tmp_path: Path) -> None:
    register(make_bundle(), "music", uri)
    written = {path.suffix for path in (tmp_path / "registry").rglob("*") if path.is_file()}
    assert written <= {".db", ".lock", ".safetensors", ".json", ".parquet"}


def test_whether_a_version_exists_is_known_without_torch(make_bundle, uri: str) -> None:
    register(make_bundle(), "music", uri)
    assert exists("music", 1, uri)
    assert not exists("music", 2, uri)
    assert not exists("other", 1, uri)
    assert exists("music", 1, uri, run_id=RegistryClient(uri).get("music", 1).run_id)
    assert not exists("music", 1, uri, run_id="of a registry that was deleted")
    code = (
        f"import sys; from registry.backend.client import exists; assert exists('music', 1, {uri!r});"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
