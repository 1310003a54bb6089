from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from data.errors import InputError
from registry.bundle.assemble import assemble_bundle
from registry.bundle.manifest import (
    BUNDLE_FILES,
    EVALUATED_EMBEDDINGS,
    EVALUATED_LOCAL,
    EVALUATED_WEIGHTS,
    HEADS,
    LOCAL,
    MANIFEST,
    ScoreFiles,
    read_manifest,
    verify_bundle,
)
from registry.bundle.seen_tables import seen_table
from registry.recommender import Recommender


def test_the_same_inputs_give_the_same_digest(make_bundle) -> None:
    one, two, other = make_bundle(), make_bundle(), make_bundle(quality=2.0)
    assert read_manifest(one) == read_manifest(two)
    assert read_manifest(one).digest != read_manifest(other).digest


def test_the_manifest_says_what_the_weights_have_seen(make_bundle) -> None:
    facts = verify_bundle(make_bundle(seed=3)).facts
    assert facts.seen_splits == ({"strategy": "random", "salt": 3, "val_ratio": 0.15, "test_ratio": 0.15},)
    assert (facts.source, facts.trainer, facts.in_sample) == ("log", "advanced", False)
    assert verify_bundle(make_bundle(trainer="simple")).facts.in_sample


@pytest.mark.parametrize("name", sorted(BUNDLE_FILES))
def test_one_flipped_byte_is_found_and_named(bundle: Path, name: str) -> None:
    path = bundle / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"refused: {name} is damaged or belongs to another bundle"):
        Recommender.load(path.parent)


@pytest.mark.parametrize("name", sorted(BUNDLE_FILES | {MANIFEST}))
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(InputError, match=f"refused: {name} is missing"):
        Recommender.load(bundle)


def test_an_extra_file_is_named(bundle: Path) -> None:
    (bundle / "more").mkdir()
    (bundle / "more" / "weights.pkl").write_bytes(b"x")
    with pytest.raises(InputError, match=r"refused: more/weights\.pkl does not belong to it"):
        Recommender.load(bundle)


def test_another_versions_file_is_named(bundle: Path, make_bundle) -> None:
    other = make_bundle(seed=1)
    shutil.copyfile(other / "seen.parquet", bundle / "seen.parquet")
    with pytest.raises(InputError, match=r"seen\.parquet is damaged or belongs to another bundle"):
        Recommender.load(bundle)


def test_a_changed_fact_is_found(make_bundle) -> None:
    path = make_bundle(source="synthetic") / MANIFEST
    path.write_text(path.read_text().replace('"synthetic"', '"log"'))
    with pytest.raises(InputError, match=r"manifest\.json is damaged: its digest does not match its content"):
        Recommender.load(path.parent)


def test_a_truncated_manifest_is_refused(bundle: Path) -> None:
    path = bundle / MANIFEST
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"refused: manifest\.json is damaged"):
        Recommender.load(path.parent)


def test_parts_of_different_runs_are_not_put_together(make_parts, tmp_path: Path) -> None:
    parts = make_parts()
    users = pq.read_table(parts["vocabularies"] / "users.parquet")
    pq.write_table(users.slice(1), parts["vocabularies"] / "users.parquet")
    with pytest.raises(InputError, match="the graph has 40 users, the vocabulary names 39 and the model embeds 40"):
        assemble_bundle(tmp_path / "bundle", **parts)
    assert not (tmp_path / "bundle" / MANIFEST).exists()


def test_a_part_that_was_not_written_is_named(make_parts, tmp_path: Path) -> None:
    parts = make_parts()
    (parts["evaluation"] / "lists.parquet").unlink()
    with pytest.raises(InputError, match=r"The bundle needs .*lists\.parquet, which does not exist"):
        assemble_bundle(tmp_path / "bundle", **parts)


def test_every_known_listen_is_in_the_table_with_its_part(make_parts) -> None:
    graph = make_parts()["graph"]
    seen = seen_table(graph)
    store = graph["user", "listens", "song"]
    assert seen["user"].to_pylist() == store.edge_index[0].tolist()
    assert seen["song"].to_pylist() == store.edge_index[1].tolist()
    held_out = [part != "train" for part in seen["part"].to_pylist()]
    assert held_out == (~store.train_mask).tolist()


def test_listens_of_users_without_a_train_song_are_known_too(make_parts) -> None:
    graph = make_parts()["graph"]
    store = graph["user", "listens", "song"]
    before = seen_table(graph).num_rows
    song = next(song for song in range(30) if song not in store.edge_index[1][store.edge_index[0] == 0].tolist())
    store.new_user_test_index = torch.tensor([[0], [song]])
    rows = seen_table(graph).to_pylist()
    assert len(rows) == before + 1
    assert {"user": 0, "song": song, "part": "test"} in rows


def test_listens_that_no_mask_holds_are_known_too(make_parts) -> None:
    """Those of the gap before validation, and, as a split leaves them, those of users without a train listen."""
    graph = make_parts()["graph"]
    store = graph["user", "listens", "song"]
    number = int(store.test_mask.nonzero()[0])
    user, song = store.edge_index[:, number].tolist()
    store.test_mask[number] = False
    assert {"user": user, "song": song, "part": "left_out"} in seen_table(graph).to_pylist()
    store.new_user_test_index = torch.tensor([[user], [song]])
    assert {"user": user, "song": song, "part": "test"} in seen_table(graph).to_pylist()
    assert seen_table(graph).num_rows == store.edge_index.shape[1]


def write_optional(folder: Path) -> dict[str, Path]:
    folder.mkdir()
    for name in ("profile", "audit", "seeds"):
        (folder / f"{name}.json").write_text('{"from": "a stage"}\n')
    return {name: folder / f"{name}.json" for name in ("profile", "audit", "seeds")}


def test_profile_audit_and_seeds_belong_to_the_bundle_where_there_are_any(make_parts, tmp_path: Path) -> None:
    manifest = assemble_bundle(tmp_path / "bundle", **{**make_parts(), **write_optional(tmp_path / "stages")})
    assert set(manifest.files) == BUNDLE_FILES | {"profile.json", "audit.json", "seeds.json"}
    assert verify_bundle(tmp_path / "bundle") == manifest
    (tmp_path / "bundle" / "audit.json").write_text('{"passed": true}\n')
    with pytest.raises(InputError, match=r"refused: audit\.json is damaged or belongs to another bundle"):
        verify_bundle(tmp_path / "bundle")


def test_an_audit_that_is_laid_beside_a_bundle_does_not_count(make_parts, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    assemble_bundle(bundle, **{**make_parts(), "audit": None})
    (bundle / "audit.json").write_text('{"passed": true}\n')
    with pytest.raises(InputError, match=r"refused: audit\.json does not belong to it"):
        verify_bundle(bundle)


def test_heads_are_those_of_the_published_weights(make_parts, tmp_path: Path) -> None:
    parts = make_parts()
    refit = shutil.copytree(parts["model"], tmp_path / "refit")
    for folder, value in ((parts["model"], 0.0), (refit, 1.0)):
        save_file({"completion.offset": torch.tensor(value)}, folder / HEADS)
    for name, given, value in (("once", None, 0.0), ("refitted", refit, 1.0)):
        assemble_bundle(tmp_path / name, **parts, refit=given)
        assert HEADS in verify_bundle(tmp_path / name).files
        assert float(load_file(tmp_path / name / HEADS)["completion.offset"]) == value


def test_a_refitted_model_is_published_and_the_evaluated_one_kept(make_parts, tmp_path: Path) -> None:
    parts, refit = make_parts(quality=1.0), make_parts(quality=2.0)["model"]
    save_file({"weight": torch.zeros(2)}, parts["model"] / "model.safetensors")
    facts = assemble_bundle(tmp_path / "bundle", **parts, refit=refit).facts
    assert (facts.refit, facts.in_sample) == (True, False)
    assert facts.seen_splits[0] == parts["split"]
    published = (tmp_path / "bundle" / "embeddings.safetensors").read_bytes()
    evaluated = (tmp_path / "bundle" / EVALUATED_EMBEDDINGS).read_bytes()
    assert published == (refit / "embeddings.safetensors").read_bytes()
    assert evaluated == (parts["model"] / "embeddings.safetensors").read_bytes()
    assert (tmp_path / "bundle" / EVALUATED_WEIGHTS).read_bytes() == (parts["model"] / "model.safetensors").read_bytes()
    assert Recommender.load(tmp_path / "bundle").recommend("u03", 4)


def test_an_evaluated_model_of_another_graph_is_refused(make_parts, tmp_path: Path) -> None:
    parts, refit = make_parts(), make_parts()["model"]
    vectors = load_file(refit / "embeddings.safetensors")
    save_file({**vectors, "user": vectors["user"][1:]}, parts["model"] / "embeddings.safetensors")
    with pytest.raises(InputError, match="names 40 and the model embeds 39"):
        assemble_bundle(tmp_path / "bundle", **parts, refit=refit)


def test_the_local_channel_belongs_to_the_bundle_of_a_model_that_has_one(make_parts, tmp_path: Path) -> None:
    parts, bundle = make_parts(similarity=1.0), tmp_path / "bundle"
    manifest = assemble_bundle(bundle, **parts)
    assert (manifest.published, manifest.evaluated) == (ScoreFiles(local=LOCAL), ScoreFiles(local=LOCAL))
    assert (bundle / LOCAL).read_bytes() == (parts["model"] / LOCAL).read_bytes()
    (bundle / LOCAL).unlink()
    with pytest.raises(InputError, match=r"refused: local\.safetensors is missing"):
        verify_bundle(bundle)


def test_a_local_channel_that_is_laid_beside_a_bundle_is_refused(bundle: Path, make_parts) -> None:
    shutil.copyfile(make_parts(similarity=1.0)["model"] / LOCAL, bundle / LOCAL)
    with pytest.raises(InputError, match=r"refused: local\.safetensors does not belong to it"):
        Recommender.load(bundle)


def test_a_refitted_model_and_the_evaluated_one_have_a_local_channel_each(make_parts, tmp_path: Path) -> None:
    parts, refit = make_parts(similarity=1.0), make_parts(similarity=0.5, trainer="simple")["model"]
    manifest = assemble_bundle(tmp_path / "bundle", **parts, refit=refit)
    assert manifest.published == ScoreFiles(local=LOCAL)
    assert manifest.evaluated == ScoreFiles(EVALUATED_EMBEDDINGS, EVALUATED_LOCAL)
    for name, model in ((LOCAL, refit), (EVALUATED_LOCAL, parts["model"])):
        assert (tmp_path / "bundle" / name).read_bytes() == (model / LOCAL).read_bytes()


def changed_file(path: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = load_file(path)
    save_file({**tensors, name: change(tensors[name]).contiguous()}, path)


@pytest.mark.parametrize("refitted", [False, True])
@pytest.mark.parametrize(("name", "kind", "count"), [("listens.start", "users", 40), ("artists.start", "songs", 30)])
def test_a_local_channel_of_another_graph_is_refused(
    make_parts, tmp_path: Path, refitted: bool, name: str, kind: str, count: int
) -> None:
    parts = make_parts(similarity=1.0)
    refit = {"refit": make_parts(similarity=1.0)["model"]} if refitted else {}
    changed_file(parts["model"] / LOCAL, name, lambda start: torch.cat([start, start[-1:]]))  # one more, without edges
    sentence = f"the vocabulary names {count} and its local channel knows {count + 1}; take all from one run"
    with pytest.raises(InputError, match=f"the graph has {count} {kind}, {sentence}"):
        assemble_bundle(tmp_path / "bundle", **parts, **refit)


def test_a_local_channel_whose_arrays_do_not_fit_is_refused(make_parts, tmp_path: Path) -> None:
    parts = make_parts(similarity=1.0)
    changed_file(parts["model"] / LOCAL, "listens.song", lambda song: song + 1)
    with pytest.raises(InputError, match=r"is refused: listens\.song goes from 1 to 30, and only 0 to 29 can be meant"):
        assemble_bundle(tmp_path / "bundle", **parts)


def test_a_bundle_of_an_earlier_release_stays_loadable(make_parts, tmp_path: Path) -> None:
    """Its manifest lacks the facts that were added since."""
    bundle = tmp_path / "bundle"
    none = dict.fromkeys(("profile", "audit", "seeds"))
    digest = assemble_bundle(bundle, **{**make_parts(), **none}).digest
    manifest = json.loads((bundle / MANIFEST).read_text())
    del manifest["facts"]["refit"]
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    assert verify_bundle(bundle).digest == digest


def test_that_a_model_was_refitted_is_signed(make_parts, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    assemble_bundle(bundle, **make_parts())
    path = bundle / MANIFEST
    path.write_text(path.read_text().replace('"refit": false', '"refit": true'))
    with pytest.raises(InputError, match=r"manifest\.json is damaged: its digest does not match"):
        verify_bundle(bundle)
