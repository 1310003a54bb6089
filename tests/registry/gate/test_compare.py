"""Two models of different logs on the same users and pairs, against a loop that reads like the rule."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from evaluation.record import read_per_user
from models.item_paths.local_scorer import LocalScorer, PathHeads
from models.item_paths.paths import Neighbors, Paths
from registry.bundle.manifest import EMBEDDINGS, LOCAL, ScoreFiles, read_manifest
from registry.gate.compare import Comparison, _coverage_by_user, compare

Pair = tuple[str, str]


class World:
    """A model as plain dictionaries: ids, pairs by part, and scores (U, S) as products with unit song vectors.

    With a local channel the scores are what it makes of these products.
    """

    def __init__(
        self, users: Iterable[str], songs: Iterable[str], seen: dict[str, set[Pair]], seed: int = 0, local: bool = False
    ) -> None:
        self.users, self.songs, self.seen = list(users), list(songs), seen
        self.products = np.random.default_rng(seed).random((len(self.users), len(self.songs))).astype(np.float32)
        self.local = self.connected() if local else None
        everyone = np.arange(len(self.users))
        self.scores = self.local(everyone, self.products.copy()) if self.local else self.products

    def connected(self) -> LocalScorer:
        pairs = sorted((self.users.index(user), self.songs.index(song)) for user, song in self.seen["train"])
        (user, song), songs, users = np.array(pairs).T, len(self.songs), len(self.users)
        none, head = np.empty(0, dtype=np.int64), np.array([[0.5, -0.2, 0.3, 1.0]], dtype=np.float32)
        relations = Paths.of(song, user, songs, users, [0.3]), Paths.of(none, none, songs, 0, [0.5])
        return LocalScorer(
            Neighbors.of(user, song, users),
            tuple(PathHeads(paths, head) for paths in relations),
            user_power=np.array([0.5, 0.5], dtype=np.float32),
            gates=np.array([[0.7, 0.2, 0.1], [0.1, 0.0, 0.0], [0.6, 0.1, 0.2]], dtype=np.float32),
            popularity=0.2,
        )

    @property
    def files(self) -> ScoreFiles:
        return ScoreFiles(local=LOCAL if self.local else None)

    def write(self, folder: Path) -> Path:
        folder.mkdir()
        pq.write_table(pa.table({"user_id": self.users}), folder / "users.parquet")
        pq.write_table(pa.table({"track_id": self.songs}), folder / "songs.parquet")
        pq.write_table(pa.table({"artist_id": ["a0", "a1"]}), folder / "artists.parquet")
        by = {"song": pa.array(range(len(self.songs)), pa.int32())}
        by["artist"] = pa.array([int(song[1:]) % 2 for song in self.songs], pa.int32())
        pq.write_table(pa.table(by), folder / "song_artists.parquet")
        rows = [(self.users.index(u), self.songs.index(s), part) for part in self.seen for u, s in self.seen[part]]
        columns = zip(*sorted(rows), strict=True)
        user, song, part = columns
        seen = {"user": pa.array(user, pa.int32()), "song": pa.array(song, pa.int32()), "part": pa.array(part)}
        pq.write_table(pa.table(seen), folder / "seen.parquet")
        vectors = {"user": torch.from_numpy(self.products), "song": torch.eye(len(self.songs))}
        save_file(vectors, folder / EMBEDDINGS)
        if self.local:
            self.local.save(folder / LOCAL)
        return folder

    def trained(self, user: str) -> bool:
        return any(one == user for one, _ in self.seen["train"])

    def best(self, user: str, hidden: set[Pair], k: int, among: set[str]) -> list[str]:
        """The naive list; empty for a user without a train song."""
        if not self.trained(user):
            return []
        row = self.users.index(user)
        open_songs = [s for s in self.songs if s in among and (user, s) not in hidden]
        return sorted(open_songs, key=lambda song: -self.scores[row, self.songs.index(song)])[:k]


def random_world(rng: np.random.Generator, users: range, songs: range, seed: int, local: bool = False) -> World:
    parts: dict[str, set[Pair]] = {"train": set(), "val": set(), "test": set()}
    for user in users:
        for song in rng.choice(list(songs), size=min(7, len(songs)), replace=False):
            parts[str(rng.choice(["train", "train", "val", "test"]))].add((f"u{user}", f"s{song}"))
    return World([f"u{user}" for user in users], [f"s{song}" for song in songs], parts, seed, local)


def naive(ours: World, theirs: World, k: int, common: bool = False) -> tuple[list[float], list[float]]:
    relevant = ours.seen["test"] - theirs.seen["train"] - theirs.seen["val"]
    hidden = ours.seen["train"] | theirs.seen["train"]
    known = all if common else any
    relevant = {(u, s) for u, s in relevant if known([ours.trained(u), theirs.trained(u)])}
    among = set(ours.songs) & set(theirs.songs) if common else set(ours.songs) | set(theirs.songs)
    relevant = {(u, s) for u, s in relevant if s in among}
    found: tuple[list[float], list[float]] = ([], [])
    for user in [user for user in ours.users if any(u == user for u, _ in relevant)]:
        wanted = {s for u, s in relevant if u == user}
        for model, values in zip((ours, theirs), found, strict=True):
            values.append(len(wanted & set(model.best(user, hidden, k, among))) / len(wanted))
    return found


def compared(ours: World, theirs: World, folder: Path, k: int = 3) -> Comparison:
    return compare(ours.write(folder / "ours"), theirs.write(folder / "theirs"), k, (ours.files, theirs.files))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("local", [(False, False), (True, False), (False, True), (True, True)])
def test_both_are_measured_as_the_rule_says(tmp_path: Path, seed: int, local: tuple[bool, bool]) -> None:
    """The champion lacks some users and songs, and knows some that the challenger does not.

    Where one has a local channel, songs that it may not list still lead to those that it may.
    """
    rng = np.random.default_rng(seed)
    ours = random_world(rng, range(30), range(20), seed, local[0])
    theirs = random_world(rng, range(5, 40), range(4, 26), seed + 100, local[1])
    comparison = compared(ours, theirs, tmp_path)
    for pair, common in ((comparison.watched, False), (comparison.common, True)):
        expected = naive(ours, theirs, 3, common)
        assert pair.challenger.tolist() == pytest.approx(expected[0])
        assert pair.champion.tolist() == pytest.approx(expected[1])
    assert len(comparison.common) < len(comparison.watched)


@pytest.mark.parametrize("local", [False, True])
def test_on_its_own_split_a_model_has_the_value_of_its_evaluation(
    request: pytest.FixtureRequest, make_bundle, local: bool
) -> None:
    bundle = request.getfixturevalue("with_local" if local else "pristine")
    comparison = compare(bundle, make_bundle(quality=0.6), 5, (read_manifest(bundle).evaluated, ScoreFiles()))
    assert comparison.watched.challenger.tolist() == read_per_user(bundle / "per_user.parquet", "recall@5")[1].tolist()
    assert comparison.common.challenger.tolist() == comparison.watched.challenger.tolist()


def simple_world(test: Pair = ("u1", "s3"), **seen: set[Pair]) -> World:
    parts = {"train": {("u1", "s1"), ("u2", "s2")}, "val": set(), "test": {test}, **seen}
    return World(["u1", "u2"], ["s1", "s2", "s3"], parts)


def test_a_user_whom_the_champion_does_not_know_counts_as_its_miss(tmp_path: Path) -> None:
    theirs = World(["u2"], ["s1", "s2", "s3"], {"train": {("u2", "s2")}, "val": set(), "test": set()})
    comparison = compared(simple_world(), theirs, tmp_path)
    assert (comparison.watched.challenger.tolist(), comparison.watched.champion.tolist()) == ([1.0], [0.0])
    assert len(comparison.common) == 0


def test_a_song_that_the_champion_does_not_know_counts_as_its_miss(tmp_path: Path) -> None:
    theirs = World(["u1", "u2"], ["s1", "s2"], {"train": {("u1", "s1"), ("u2", "s2")}, "val": set(), "test": set()})
    comparison = compared(simple_world(), theirs, tmp_path)
    assert (comparison.watched.challenger.tolist(), comparison.watched.champion.tolist()) == ([1.0], [0.0])
    assert len(comparison.common) == 0


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_pair_that_the_champion_has_seen_is_not_asked(tmp_path: Path, part: str) -> None:
    theirs = simple_world()
    theirs.seen["test"] = set()
    theirs.seen[part] = theirs.seen[part] | {("u1", "s3")}
    assert len(compared(simple_world(), theirs, tmp_path).watched) == 0


def test_coverage_is_the_share_of_songs_and_its_spread_the_jackknifes() -> None:
    rng = np.random.default_rng(0)
    items = torch.from_numpy(np.stack([rng.choice(40, size=4, replace=False) for _ in range(25)]))
    items[3, 2:] = -1
    values = _coverage_by_user(items, 50)
    assert values.mean() == pytest.approx(len(set(items[items >= 0].tolist())) / 50)
    without = [torch.cat([items[:row], items[row + 1 :]]) for row in range(25)]
    left_out = np.array([len(set(rest[rest >= 0].tolist())) / 50 for rest in without])
    jackknife = 24 / 25 * np.square(left_out - left_out.mean()).sum()
    assert values.var(ddof=1) / 25 == pytest.approx(jackknife)


def test_guardrails_look_at_tail_songs_cold_users_and_artists(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    ours, theirs = (random_world(rng, range(40), range(25), seed) for seed in (1, 2))
    comparison = compared(ours, theirs, tmp_path)
    guarded, users = comparison.guarded, len(comparison.watched)
    assert set(guarded) == {"coverage", "tail recall", "cold users' recall", "artist diversity"}
    assert 0 < len(guarded["tail recall"]) < users
    assert 0 < len(guarded["cold users' recall"]) < users
    assert len(guarded["coverage"]) == users
    same_artist = guarded["artist diversity"].challenger
    assert set(np.round(same_artist * 3)) <= {0, 2}  # of three songs of two artists, none or two pairs differ
