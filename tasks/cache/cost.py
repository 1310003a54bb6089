"""What a stage costs: seconds, and the most memory that it took."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
BYTES_PER_UNIT = 1 if sys.platform == "darwin" else 1024
"""Unit of ``ru_maxrss``."""


def start_measuring() -> float:
    """Return the time, in seconds since 1970, and forget the peak of memory.

    Only Linux can forget it (proc(5)); elsewhere the peak stays that of the process.
    """
    with suppress(OSError):
        RESET.write_text("5")
    return time.time()


def cost_since(started: float) -> dict[str, Any]:
    """Return what a manifest says of the cost since ``start_measuring``."""
    return {"started": started, "seconds": round(time.time() - started, 3), "peak_mib": peak_mib()}


def peak_mib() -> int:
    """Return the largest resident memory of this process since ``start_measuring``, in MiB, all of it counted."""
    try:
        lines = STATUS.read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_PER_UNIT // 2**20
    return kib // 1024
