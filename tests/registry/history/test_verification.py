from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from registry.backend.client import RegistryClient
from registry.bundle.assemble import assemble_bundle
from registry.bundle.manifest import Manifest, read_manifest
from registry.register import register
from registry.verification import verify_version


@pytest.mark.parametrize("choices", [{}, {"trainer": "simple"}, {"similarity": 0.5}])
def test_a_sound_version_is_hashed_and_scored_again(make_bundle, uri: str, choices: dict[str, str]) -> None:
    register(make_bundle(**choices), "music", uri)
    client = RegistryClient(uri)
    checked = verify_version(client, client.get("music", 1), num_users=7)
    assert (checked.problem, checked.users) == (None, 7)
    assert checked.files == len(client.bundles.sizes(client.get("music", 1))) - 1
    assert verify_version(client, client.get("music", 1), num_users=1000).users == 40


def test_every_flipped_byte_is_found_by_name(decided, client: RegistryClient) -> None:
    decided(1)
    version = client.get("music", 1)
    with client.bundles.folder(version) as folder:
        for path in sorted(folder.iterdir()):
            whole = path.read_bytes()
            flipped = bytearray(whole)
            flipped[len(flipped) // 2] ^= 1
            path.write_bytes(flipped)
            problem = verify_version(client, version).problem
            assert problem is not None, path.name
            assert path.name in problem
            path.write_bytes(whole)
    assert verify_version(client, version).problem is None


def signed_again(folder: Path) -> Path:
    Manifest.of(folder, read_manifest(folder).facts).write(folder)
    return folder


def test_lists_that_the_vectors_do_not_give_are_found(bundle: Path, uri: str) -> None:
    """Every digest is right; only scoring again shows it."""
    lists = pq.read_table(bundle / "lists.parquet")
    scores = np.where(pc.equal(lists["user_id"], "u07").to_numpy(zero_copy_only=False), 0.5, lists["score"].to_numpy())
    pq.write_table(lists.set_column(3, "score", pa.array(scores.astype(np.float32))), bundle / "lists.parquet")
    register(signed_again(bundle), "music", uri)
    client = RegistryClient(uri)
    problem = verify_version(client, client.get("music", 1)).problem
    assert problem is not None
    assert "lists.parquet holds another list for user 'u07'" in problem


def test_lists_that_the_local_channel_does_not_give_are_found(with_local: Path, tmp_path: Path, uri: str) -> None:
    bundle = Path(shutil.copytree(with_local, tmp_path / "bundle"))
    channel = load_file(bundle / "local.safetensors")
    save_file({**channel, "gates": channel["gates"] * 2}, bundle / "local.safetensors")
    register(signed_again(bundle), "music", uri)
    client = RegistryClient(uri)
    problem = verify_version(client, client.get("music", 1)).problem
    assert problem is not None
    assert "lists.parquet holds another list for user 'u00' than the model gives" in problem


@pytest.mark.parametrize("similarity", [(None, None), (0.5, -1.0)])
def test_a_refitted_version_is_sound(
    make_parts, tmp_path: Path, uri: str, similarity: tuple[float | None, float | None]
) -> None:
    """It has the lists of the evaluated model, which hide that model's train songs alone."""
    evaluated, refit = (make_parts(quality=1.0 + number, similarity=of) for number, of in enumerate(similarity))
    assemble_bundle(tmp_path / "bundle", **evaluated, refit=refit["model"])
    register(tmp_path / "bundle", "music", uri)
    client = RegistryClient(uri)
    assert verify_version(client, client.get("music", 1)).problem is None


def test_a_refit_is_scored_by_the_evaluated_model_whose_lists_they_are(bundle: Path, uri: str) -> None:
    vectors = load_file(bundle / "embeddings.safetensors")
    (bundle / "embeddings.safetensors").replace(bundle / "evaluated_embeddings.safetensors")
    save_file({name: -values for name, values in vectors.items()}, bundle / "embeddings.safetensors")
    register(signed_again(bundle), "music", uri)
    client = RegistryClient(uri)
    assert verify_version(client, client.get("music", 1)).problem is None
