"""How Numba compiles loops, and how they run on several threads.

A loop is compiled when it is first called. The machine code is kept on disk: in ``NUMBA_CACHE_DIR``, else next to this
module, else in the user's cache folder. If no folder can be written, each process compiles again.

Threads are plain Python threads around kernels that release the GIL. Numba's own threading layers are not used, because
the one that every wheel contains ends the process when two Python threads call it at the same time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from data.machine import threads

Array = npt.NDArray[Any]

HERE = Path(__file__).parent

CONFIG: Any = numba.config

CALLS_PER_THREAD = 4
"""A thread that waits for its core must not hold up the others, so the work is cut into more calls than threads."""

MAX_PARTS = 64
"""Parts of about equal cost: enough to balance the threads, few enough to cost nothing themselves."""

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}
"""Sums may be vectorised, which fixes their order at compile time. NaN and infinity keep their meaning."""


def in_parallel(kernel: Callable[..., None], threads: int, parts: int, *arguments: Any) -> None:
    """Run ``kernel(first part, last part, *arguments)`` over all parts on as many threads."""
    if threads == 1 or parts == 0:
        return kernel(0, parts, *arguments)
    calls = min(CALLS_PER_THREAD * threads, parts)
    bounds = [parts * call // calls for call in range(calls + 1)]
    # a new pool costs about 0.1 ms a call, and leaves nothing behind on which a fork or an exit could hang
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(kernel, *bound, *arguments) for bound in pairwise(bounds)]
    for call in running:
        call.result()
    return None


def in_balanced_parts(kernel: Callable[..., None], cost: Array, *arguments: Any) -> None:
    """Run ``kernel(first part, last part, bounds, *arguments)`` on all threads, over rows of known cost (n,).

    Part p holds the rows from ``bounds[p]`` to before ``bounds[p + 1]``.
    """
    bounds = balanced_bounds(cost)
    in_parallel(kernel, threads(), len(bounds) - 1, bounds, *arguments)


def balanced_bounds(cost: Array, parts: int = MAX_PARTS) -> Array:
    """Cut rows of known cost (n,) into parts of about equal cost: returns their bounds (at most ``parts`` + 1,)."""
    total = np.cumsum(np.maximum(cost, 1))
    cuts = np.searchsorted(total, np.linspace(0, total[-1] if len(total) else 0, parts + 1)[1:-1])
    return np.unique(np.concatenate([[0], cuts, [len(cost)]])).astype(np.int64)


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Compile at the first call, and keep the machine code on disk."""
    compiled: Callable[..., None]
    try:
        with _cached_in(_cache_folder()):
            compiled = numba.njit(function, cache=True, **OPTIONS)
    except RuntimeError:  # Numba has found no folder that it can write to
        compiled = numba.njit(function, **OPTIONS)
    return compiled


def _cache_folder() -> Path:
    """Return another folder whenever a file of this package changes.

    Numba itself checks only the file of the kernel, and not those of the functions and types that the kernel uses. It
    also fails to read a cached kernel if a type in its signature has another name now.
    """
    code = b"".join(path.read_bytes() for path in sorted(HERE.glob("*.py")))
    return Path(CONFIG.CACHE_DIR or HERE / "__pycache__") / f"kernels-{hashlib.sha256(code).hexdigest()[:16]}"


@contextmanager
def _cached_in(folder: Path) -> Iterator[None]:
    """Let kernels that are defined inside keep their machine code in ``folder``, if Numba can write to it."""
    chosen = CONFIG.CACHE_DIR
    CONFIG.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        CONFIG.CACHE_DIR = chosen


def inner(function: Callable[..., Any]) -> Any:
    """Compile as a part of kernels, always inlined.

    A function that is not inlined runs different machine code in the process that compiles the kernel and in those that
    load it from disk, and then sums may differ in the last bit.
    """
    return numba.njit(function, forceinline=True, **OPTIONS)


def exact(function: Callable[..., Any]) -> Any:
    """Compile as a part of kernels, with every operation as it is written: the same bits in a vector as alone.

    ``fastmath`` is refused by name. If it were left out, Numba would take the option of the kernel that is compiled
    first.
    """
    return numba.njit(function, nogil=True, error_model="numpy", fastmath=False)
