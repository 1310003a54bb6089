"""The local channel in use: against a loop that reads like the docstring of ``models.item_paths.local_channel``;
files that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from data.errors import InputError
from models.item_paths.local_scorer import LAYOUT, LocalScorer, PathHeads
from models.item_paths.paths import Neighbors, Paths

whenever_compiled = settings(deadline=None)  # the first example may have to wait for the compiler

USER_POWERS, ARTIST_POWERS, HEADS = (0.3, 1.0), (0.5,), (2, 1)


class World(NamedTuple):
    """Who listened to what and who made it, and parameters of a local channel."""

    users: int
    songs: int
    listens: set[tuple[int, int]]
    by: set[tuple[int, int]]
    heads: tuple[np.ndarray, np.ndarray]
    user_power: np.ndarray
    gates: np.ndarray
    popularity: float
    similarity: np.ndarray

    def compiled(self) -> LocalScorer:
        user, song = columns(self.listens)
        made, artist = columns(self.by)
        paths = (
            Paths.of(song, user, self.songs, self.users, USER_POWERS),
            Paths.of(made, artist, self.songs, int(artist.max(initial=-1)) + 1, ARTIST_POWERS),
        )
        return LocalScorer(
            Neighbors.of(user, song, self.users),
            tuple(PathHeads(path, head) for path, head in zip(paths, self.heads, strict=True)),
            user_power=self.user_power,
            gates=self.gates,
            popularity=self.popularity,
        )

    def scores(self, local: LocalScorer, users: np.ndarray | None = None) -> np.ndarray:
        rows = np.arange(self.users) if users is None else users
        return local(rows, self.similarity[rows].copy())


def columns(pairs: set[tuple[int, int]]) -> np.ndarray:
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T


def world(users: int, songs: int, listens: set[tuple[int, int]], by: set[tuple[int, int]], seed: int = 0) -> World:
    rng, total = np.random.default_rng(seed), sum(HEADS)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    powers = (len(USER_POWERS), len(ARTIST_POWERS))
    heads = tuple(draw(count, 3 + power) for count, power in zip(HEADS, powers, strict=True))
    parameters = {"heads": heads, "user_power": draw(total), "gates": draw(total + 1, 3)}
    return World(users, songs, listens, by, **parameters, popularity=float(draw()), similarity=draw(users, songs))


@st.composite
def worlds(draw: Callable[..., Any]) -> World:
    """Users without songs, songs without listeners, no artists at all and several of one song are among them."""
    users, songs, artists = draw(st.integers(1, 6)), draw(st.integers(1, 8)), draw(st.integers(0, 4))
    listens = draw(st.sets(st.tuples(st.integers(0, users - 1), st.integers(0, songs - 1))))
    made = st.tuples(st.integers(0, songs - 1), st.integers(0, artists - 1)) if artists else st.nothing()
    return world(users, songs, listens, draw(st.sets(made)), draw(st.integers(0, 2**32 - 1)))


def larger_world(seed: int = 0) -> World:
    """A user's songs are a small part of all; user 0 has none."""
    rng = np.random.default_rng(seed)
    listens = {(user, int(song)) for user in range(1, 60) for song in rng.integers(0, 900, size=rng.integers(1, 9))}
    by = {(int(song), int(artist)) for song, artist in zip(rng.integers(0, 900, 700), rng.integers(0, 90, 700))}  # noqa: B905
    return world(60, 900, listens, by, seed)


def naive_edge(
    world: World, pairs: set[tuple[int, int]], powers: tuple[float, ...], head: np.ndarray, i: int, j: int
) -> float:
    """a_ij in one head; ``pairs`` are of a song and a middle."""
    common = {m for song, m in pairs if song == i} & {m for song, m in pairs if song == j}
    if not common or i == j:
        return 0.0
    sizes = [sum(middle == m for _, middle in pairs) for m in common]
    b, beta, gamma, *alpha = (float(value) for value in head)
    score = b + beta * log_listeners(world, i) + gamma * log_listeners(world, j)
    score += sum(a * log(sum(size**-p for size in sizes)) for a, p in zip(alpha, powers, strict=True))
    return exp(min(max(score, -20), 15))


def log_listeners(world: World, song: int) -> float:
    return log(max(1, sum(heard == song for _, heard in world.listens)))


def naive_score(world: World, u: int, i: int) -> float:
    history = [song for user, song in world.listens if user == u]
    log_n, log_d = log(max(1, len(history))), log_listeners(world, i)
    listened = {(song, user) for user, song in world.listens}
    relations = ((listened, USER_POWERS, world.heads[0]), (world.by, ARTIST_POWERS, world.heads[1]))
    of_heads = [(pairs, powers, head) for pairs, powers, heads in relations for head in heads]
    score = world.popularity * log_d
    for (*relation, head), delta, gate in zip(of_heads, world.user_power, world.gates[:-1], strict=True):
        found = sum(naive_edge(world, *relation, head, i, j) for j in history)
        score += naive_gate(gate, log_n, log_d) * log(1 + exp(-float(delta) * log_n) * found)
    return score + naive_gate(world.gates[-1], log_n, log_d) * float(world.similarity[u, i])


def naive_gate(gate: np.ndarray, log_n: float, log_d: float) -> float:
    constant, by_listens, by_listeners = (float(value) for value in gate)
    return constant + by_listens * log_n + by_listeners * log_d


@whenever_compiled
@given(worlds())
def test_equals_a_loop_over_the_definition(world: World) -> None:
    expected = [[naive_score(world, u, i) for i in range(world.songs)] for u in range(world.users)]
    np.testing.assert_allclose(world.scores(world.compiled()), np.array(expected), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("size", [1, 2, 7, 60])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_bits_depend_neither_on_the_batch_nor_on_the_threads(
    monkeypatch: pytest.MonkeyPatch, size: int, threads: str
) -> None:
    made = larger_world()
    expected = made.scores(made.compiled())
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    local = made.compiled()
    batches = [made.scores(local, users) for users in np.split(np.arange(60), range(size, 60, size))]
    assert (np.concatenate(batches) == expected).all()


@whenever_compiled
@given(worlds())
def test_the_bits_of_small_graphs_depend_neither_on_the_batch_nor_on_the_threads(world: World) -> None:
    expected = world.scores(world.compiled())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        patch.setattr("models.item_paths.local_scorer.ALL_EDGES_FROM", 2.0)
        for user in range(world.users):
            assert (world.scores(world.compiled(), np.array([user])) == expected[user]).all()


@pytest.mark.parametrize("users", [[0], [5], [7, 0, 7, 3]])
def test_few_users_do_not_pay_for_the_edges_of_all_songs_and_get_the_same_bits(users: list[int]) -> None:
    made, alone, together = larger_world(1), larger_world(1).compiled(), larger_world(1).compiled()
    expected = made.scores(together)
    assert (made.scores(alone, np.array(users)) == expected[users]).all()
    assert "edges" in vars(together)
    assert "edges" not in vars(alone)
    assert (made.scores(together, np.array(users)) == expected[users]).all()


def test_one_user_never_pays_for_the_edges_of_all_songs(monkeypatch: pytest.MonkeyPatch) -> None:
    made, local = larger_world(), larger_world().compiled()
    monkeypatch.setattr("models.item_paths.local_scorer.ALL_EDGES_FROM", 0.0)
    assert (made.scores(local, np.array([5])) == made.scores(made.compiled())[5]).all()
    assert "edges" not in vars(local)


def test_edges_that_may_not_fit_are_refused_before_they_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    made, local = larger_world(), larger_world().compiled()
    monkeypatch.setattr("models.item_paths.local_scorer.memory", lambda: 1000)
    with pytest.raises(InputError, match=r"needs up to .* GiB for the edges .* set model.local to false"):
        made.scores(local)
    assert len(made.scores(local, np.array([5]))) == 1


@whenever_compiled
@given(world=worlds())
def test_save_and_load_give_the_same_bits(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    path, local = tmp_path_factory.mktemp("saved") / "local.safetensors", world.compiled()
    local.save(path)
    loaded = LocalScorer.load(path)
    assert (loaded.num_users, loaded.num_songs) == (world.users, world.songs)
    assert (world.scores(loaded) == world.scores(local)).all()
    loaded.save(path)
    assert (world.scores(LocalScorer.load(path)) == world.scores(local)).all()


@pytest.mark.parametrize(("users", "songs"), [([60], 900), ([0], 899), ([0], 901)])
def test_other_users_or_songs_are_refused(users: list[int], songs: int) -> None:
    local = larger_world().compiled()
    with pytest.raises(InputError, match="The local channel knows 60 users and 900 songs, and is asked for user"):
        local(np.array(users), np.zeros((1, songs), dtype=np.float32))


Tensors = dict[str, np.ndarray]


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Tensors]:
    path = tmp_path / "local.safetensors"
    listens = {(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 2)}
    world(3, 4, listens, {(0, 0), (0, 1), (2, 0)}).compiled().save(path)
    return path, load_file(path)


def test_the_layout_is_what_is_saved(saved: tuple[Path, Tensors]) -> None:
    assert {name: (array.dtype, array.ndim) for name, array in saved[1].items()} == LAYOUT


def replaced(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: np.ascontiguousarray(change(tensors[name].copy()))}


def entry(name: str, place: Any, value: float) -> Callable[[Tensors], Tensors]:
    def change(array: np.ndarray) -> np.ndarray:
        array[place] = value
        return array

    return replaced(name, change)


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {other: array for other, array in tensors.items() if other != name}


DAMAGES: list[tuple[str, Callable[[Tensors], Tensors]]] = [
    *((f"it has no {name}", without(name)) for name in LAYOUT),
    *((f"{name} has .* but needs 1 dimension of int", replaced(name, np.float64)) for name in list(LAYOUT)[:4]),
    ("users.heads has 1 of float32, but needs 2 dimensions of float32", replaced("users.heads", np.ravel)),
    ("listens.start does not divide the 6 entries of listens.song", replaced("listens.start", lambda a: a[:-1])),
    ("listens.start does not divide", replaced("listens.start", lambda a: a[:0])),
    ("listens.start does not divide", entry("listens.start", 0, -1)),
    ("listens.start does not divide", entry("listens.start", 1, 2**63 - 1)),
    ("listens.start does not divide", entry("listens.start", 1, -(2**63))),
    ("artists.start does not divide the 3 entries of artists.artist", replaced("artists.start", lambda a: a[:-2])),
    ("artists.start does not divide", replaced("artists.start", lambda a: a[:0])),
    ("listens.start does not divide the 5 entries", replaced("listens.song", lambda a: a[:-1])),
    ("listens.song goes from 0 to 4, and only 0 to 3 can be meant", entry("listens.song", 5, 4)),
    ("listens.song goes from -1 to 2", entry("listens.song", 0, -1)),
    ("artists.artist goes from -7 to 1", entry("artists.artist", 2, -7)),
    ("a row of listens.song does not ascend", entry("listens.song", 0, 1)),
    ("users.heads has the shape", replaced("users.heads", lambda a: a[:, :-1])),
    ("users.heads has the shape", replaced("users.powers", lambda a: a[:1])),
    ("user_power has the shape", replaced("artists.heads", lambda a: a[:0])),
    ("user_power has the shape", replaced("user_power", lambda a: a[:-1])),
    (r"gates has the shape \(3, 3\), and \(4, 3\) fits", replaced("gates", lambda a: a[:-1])),
    ("gates has the shape", replaced("gates", lambda a: a[:, :2])),
    ("popularity has the shape", replaced("popularity", lambda a: a[:0])),
    *((f"{name} has numbers that are not finite", entry(name, 0, np.nan)) for name in list(LAYOUT)[4:]),
    ("gates has numbers that are not finite", entry("gates", 0, np.inf)),
]


@pytest.mark.parametrize(("problem", "damage"), DAMAGES)
def test_arrays_that_do_not_fit_are_refused_by_a_sentence(
    saved: tuple[Path, Tensors], problem: str, damage: Callable[[Tensors], Tensors]
) -> None:
    path, tensors = saved
    save_file(damage(tensors), path)
    with pytest.raises(InputError, match=f"The local channel .*local.safetensors is refused: {problem}"):
        LocalScorer.load(path)


def test_a_file_that_is_missing_or_cut_is_refused_by_a_sentence(saved: tuple[Path, Tensors]) -> None:
    path, _ = saved
    for content in (path.read_bytes()[:-5], b"", b"not a tensor"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is refused: it cannot be read"):
            LocalScorer.load(path)
    with pytest.raises(InputError, match="is refused: it cannot be read"):
        LocalScorer.load(path.parent / "other.safetensors")


@whenever_compiled
@given(name=st.sampled_from(list(LAYOUT)), place=st.integers(0, 200), byte=st.integers(0, 255))
def test_whatever_is_not_refused_can_be_scored(
    tmp_path_factory: pytest.TempPathFactory, name: str, place: int, byte: int
) -> None:
    """One byte of an array is another one; no loop may leave its arrays."""
    path, made = tmp_path_factory.mktemp("damaged") / "local.safetensors", larger_world(2)
    made.compiled().save(path)
    tensors = load_file(path)
    raw = bytearray(tensors[name].tobytes())
    raw[place % len(raw)] = byte
    save_file({**tensors, name: np.frombuffer(bytes(raw), tensors[name].dtype).reshape(tensors[name].shape)}, path)
    try:
        local = LocalScorer.load(path)
    except InputError:
        return
    assert made.scores(local).shape == (60, 900)
