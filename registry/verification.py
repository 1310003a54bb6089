"""Verifies registered versions: every byte, and the lists that the model gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.errors import InputError
from registry.backend.client import RegistryClient
from registry.backend.version import Version
from registry.bundle.manifest import Manifest, verify_bundle
from registry.recommender import Recommender

SAMPLED_USERS = 50
SEED = 0


@dataclass(frozen=True)
class Verified:
    """The result of verifying one version."""

    version: int
    files: int = 0
    num_bytes: int = 0
    users: int = 0
    """Users whose lists were computed again."""
    problem: str | None = None
    """The error in a sentence; None for a sound version."""


def verify_version(
    client: RegistryClient, version: Version, num_users: int = SAMPLED_USERS, seed: int = SEED
) -> Verified:
    """Hash every file of a version, check that the bundle is this version's, and score a sample of users again."""
    try:
        with client.bundles.folder(version) as folder:
            manifest = verify_bundle(folder)
            version.check(manifest)
            sizes = [(folder / name).stat().st_size for name in manifest.files]
            users = rescore(folder, manifest, num_users, seed)
    except InputError as error:
        return Verified(version.version, problem=str(error))
    return Verified(version.version, len(sizes), sum(sizes), users)


def rescore(folder: Path, manifest: Manifest, num_users: int, seed: int) -> int:
    """Rank for a sample of users with the evaluated model, and compare with ``lists.parquet``.

    Args:
        folder: a verified bundle.
        manifest: its manifest.
        num_users: users to draw; all if there are not more.
        seed: seed of the draw.

    Returns:
        the number of users that were compared.

    Raises:
        InputError: a user's list differs; the user is named.
    """
    users = pc.unique(pq.read_table(folder / "lists.parquet", columns=["user_id"])["user_id"]).to_pylist()
    sample = np.random.default_rng(seed).permutation(len(users))[:num_users]
    chosen = pa.array([users[row] for row in np.sort(sample)], pa.string())
    lists = pq.read_table(folder / "lists.parquet", filters=pc.field("user_id").isin(chosen))
    recommender = Recommender(folder, manifest, manifest.evaluated)
    for user in chosen.to_pylist():
        _compare(folder, recommender, user, lists.filter(pc.field("user_id") == user))
    return len(chosen)


def _compare(folder: Path, recommender: Recommender, user: str, stored: pa.Table) -> None:
    ordered = stored.sort_by("rank")
    found = recommender.recommend(user, len(ordered), "none" if recommender.manifest.facts.in_sample else "train")
    computed = [(record["track_id"], record["score"]) for record in found]
    if computed != list(zip(ordered["track_id"].to_pylist(), ordered["score"].to_pylist(), strict=True)):
        raise InputError(
            f"The bundle {folder} contradicts itself: lists.parquet holds another list for user '{user}' than the "
            "model gives. Do not use it; train and register the model again."
        )
