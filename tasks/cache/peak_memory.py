"""How much memory a stage took at most."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
BYTES_PER_UNIT = 1 if sys.platform == "darwin" else 1024
"""Unit of ``ru_maxrss``."""


def forget_peak() -> None:
    """Start a new measurement, where the system can (Linux, proc(5)); elsewhere the peak stays that of the process."""
    try:
        RESET.write_text("5")
    except OSError:
        return


def peak_mib() -> int:
    """Largest resident memory of this process since ``forget_peak``, in MiB, what was there before included."""
    try:
        lines = STATUS.read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_PER_UNIT // 2**20
    return kib // 1024
