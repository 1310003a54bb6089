"""Bundles of refitted models as earlier releases wrote them: their evaluated model has the file names twin_*."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import registry
from data.errors import InputError
from evaluation.audit.seen_pairs import saw_everything
from registry.backend.client import RegistryClient
from registry.bundle.assemble import assemble_bundle
from registry.bundle.manifest import LOCAL, MANIFEST, ScoreFiles, verify_bundle
from registry.gate.decide import decide
from registry.gate.gate_config import GateConfig
from registry.recommender import Recommender
from registry.register import register
from registry.verification import verify_version
from tasks.stages.warm_start import WARM_START
from trainers.warm_start.transfer import EarlierModel

OLD_NAMES = {
    "evaluated_embeddings.safetensors": "twin_embeddings.safetensors",
    "evaluated_local.safetensors": "twin_local.safetensors",
    "evaluated_model.safetensors": "twin_model.safetensors",
}


def write_as_before(folder: Path) -> Path:
    """Give the files their old names, and write the manifest that lists them."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for name, old in OLD_NAMES.items():
        (folder / name).rename(folder / old)
        manifest["files"][old] = manifest["files"].pop(name)
    del manifest["digest"]
    signed = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    manifest["digest"] = hashlib.sha256(signed).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2))
    return folder


@pytest.fixture
def old_bundle(make_parts, tmp_path: Path) -> Path:
    """A refitted model that is better than its evaluated one, whose weights are zero."""
    parts, refit = make_parts(quality=0.6, similarity=1.0), make_parts(quality=2.0, similarity=1.0)["model"]
    save_file({"weight": torch.zeros(2)}, parts["model"] / "model.safetensors")
    assemble_bundle(tmp_path / "old", **parts, refit=refit)
    return write_as_before(tmp_path / "old")


def test_it_is_sound_and_its_evaluated_model_is_found(old_bundle: Path) -> None:
    manifest = verify_bundle(old_bundle)
    assert set(OLD_NAMES.values()) <= set(manifest.files)
    assert manifest.published == ScoreFiles(local=LOCAL)
    assert manifest.evaluated == ScoreFiles("twin_embeddings.safetensors", "twin_local.safetensors")
    (old_bundle / "twin_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"refused: twin_model\.safetensors is missing"):
        verify_bundle(old_bundle)


def test_it_is_registered_verified_and_recommends(old_bundle: Path, uri: str) -> None:
    register(old_bundle, "music", uri)
    client = RegistryClient(uri)
    assert verify_version(client, client.get("music", 1)).problem is None
    loaded = registry.load(1, "music", uri)
    assert loaded.recommend("u03", 4) == Recommender.load(old_bundle).recommend("u03", 4)


def test_it_is_compared_by_its_evaluated_model(old_bundle: Path, make_bundle, lenient: GateConfig) -> None:
    better = make_bundle(quality=2.0, similarity=1.0)
    as_challenger = decide(old_bundle, 7, better)
    assert (as_challenger.outcome, as_challenger.evaluated_models) == ("reject", True)
    as_champion = decide(better, 7, old_bundle, config=lenient)
    assert (as_champion.outcome, as_champion.evaluated_models) == ("promote", True)


def test_a_training_starts_from_its_evaluated_model(old_bundle: Path, tmp_path: Path) -> None:
    assert not saw_everything(old_bundle)
    stage = tmp_path / "start"
    stage.mkdir()
    WARM_START.work(stage, {"folder": str(old_bundle)}, training_graph=tmp_path)
    assert EarlierModel.read(stage / "bundle").weights["weight"].tolist() == [0, 0]
    assert load_file(old_bundle / "model.safetensors")["weight"].tolist() == [1, 1]
