"""How loops are compiled by Numba, and run on several threads.

Nothing is compiled before it is called. What is compiled is kept on disk, under ``NUMBA_CACHE_DIR``, else beside the
module, else in the user's cache; where nothing can be written, each process compiles anew.

Threads are plain Python threads around kernels that let go of the GIL; Numba's own threading layers are not used,
because the one that every wheel has ends the process when two Python threads call it at once.
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

SHARES = 4
"""Calls of a kernel a thread."""

PARTS = 64
"""Runs of rows that threads take turns at: enough to even out their work, few enough to cost nothing themselves."""

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}
"""Sums may be vectorised, which fixes their order at compile time; NaN and infinity mean what they always do."""


def in_parallel(kernel: Callable[..., None], threads: int, parts: int, *arguments: Any) -> None:
    """Run ``kernel(first part, last part, *arguments)`` over all parts on as many threads.

    There are several shares a thread, so that one that has to wait for its core does not hold up the others.
    """
    if threads == 1 or parts == 0:
        return kernel(0, parts, *arguments)
    shares = min(SHARES * threads, parts)
    bounds = [parts * share // shares for share in range(shares + 1)]
    # a pool a call costs some 0.1 ms, and leaves nothing behind that a fork or an exit could hang on
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(kernel, *share, *arguments) for share in pairwise(bounds)]
    for share in running:
        share.result()
    return None


def in_balanced_parts(kernel: Callable[..., None], cost: Array, *arguments: Any) -> None:
    """Run ``kernel(first part, last part, bounds, *arguments)`` over rows (n,) of known cost on all threads.

    The rows of part p are those from ``bounds[p]`` to ``bounds[p + 1]``.
    """
    bounds = balanced(cost)
    in_parallel(kernel, threads(), len(bounds) - 1, bounds, *arguments)


def balanced(cost: Array, parts: int = PARTS) -> Array:
    """Bounds (at most ``parts`` + 1,) of runs of about equal cost."""
    total = np.cumsum(np.maximum(cost, 1))
    cuts = np.searchsorted(total, np.linspace(0, total[-1] if len(total) else 0, parts + 1)[1:-1])
    return np.unique(np.concatenate([[0], cuts, [len(cost)]])).astype(np.int64)


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Compile at the first call, and keep the result on disk."""
    compiled: Callable[..., None]
    try:
        with _cached_in(_cache_folder()):
            compiled = numba.njit(function, cache=True, **OPTIONS)
    except RuntimeError:  # Numba has found no folder that it may write to
        compiled = numba.njit(function, **OPTIONS)
    return compiled


def _cache_folder() -> Path:
    """Another one whenever what kernels take from other files changes: Numba looks at the file of a kernel only."""
    shared = b"".join((HERE / name).read_bytes() for name in ("compiled.py", "fast_math.py"))
    return Path(CONFIG.CACHE_DIR or HERE / "__pycache__") / f"kernels-{hashlib.sha256(shared).hexdigest()[:16]}"


@contextmanager
def _cached_in(folder: Path) -> Iterator[None]:
    """Kernels that are made within keep their results there, if Numba may write to it."""
    chosen = CONFIG.CACHE_DIR
    CONFIG.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        CONFIG.CACHE_DIR = chosen


def inner(function: Callable[..., Any]) -> Any:
    """Compile as a part of kernels.

    It is always inlined. A call that stays a call would run one machine code in the process that compiles the kernel and
    another one in those that load it from disk, and their sums may differ in the last bit.
    """
    return numba.njit(function, forceinline=True, **OPTIONS)


def exact(function: Callable[..., Any]) -> Any:
    """Compile as a part of kernels, each operation as it is written: the same bits in a vector as alone.

    ``fastmath`` has to be refused by name: what is not named is taken over from whichever kernel is compiled first.
    """
    return numba.njit(function, nogil=True, error_model="numpy", fastmath=False)
