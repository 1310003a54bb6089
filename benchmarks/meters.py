"""Measure the seconds of calls in turns, and the memory of this process."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch
from processes import KIB_OR_BYTES


def in_turns(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Call each in turn and return the median seconds by name; the first turn is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, call in runs.items():
            started = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken[name].append(time.perf_counter() - started)
    return {name: median(times[1:]) for name, times in taken.items()}


def forget_peak() -> int:
    """Reset the peak memory if the system can (Linux), and return the resident bytes now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak()


def peak() -> int:
    """Return the peak of the resident bytes since ``forget_peak``."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB_OR_BYTES
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
