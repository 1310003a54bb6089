"""Describe the machine and the code of a measurement; every benchmark prints this first."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from data.code.digests import PACKAGES
from data.machine import cores, memory

CHECKOUT = Path(__file__).resolve().parents[1]
GIB = 2**30
NOT_RESULTS = ":(exclude)benchmarks/results"
"""Results of earlier benchmarks do not count as changes of the code."""


def print_where() -> None:
    """Print the machine and the commit."""
    print(f"machine  {machine()}")
    print(f"commit   {commit()}")


def machine() -> str:
    """Return the processor, usable cores, memory, system and versions."""
    parts = [_processor(), f"{cores()} cores", f"{memory() / GIB:.0f} GiB", f"{platform.system()} {platform.machine()}"]
    versions = [f"Python {platform.python_version()}", f"torch {version('torch')}", f"Prefect {version('prefect')}"]
    return ", ".join(parts + versions)


def commit() -> str:
    """Return the commit of the checkout, with a note if files differ from it."""
    short = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", NOT_RESULTS)
    return f"{short or 'none'}{' with changes' if changed else ''}"


def code() -> str:
    """Return a digest of all code that a benchmark can run: the packages, the benchmarks and the configs."""
    folders = (*PACKAGES, "benchmarks", "configs")
    paths = [path for folder in folders for kind in ("py", "toml") for path in (CHECKOUT / folder).rglob(f"*.{kind}")]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sorted(paths))).hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown processor")


def _git(*arguments: str) -> str:
    ended = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return ended.stdout.strip()
