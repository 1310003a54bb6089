"""Where a number was measured: every benchmark prints this first."""

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
"""Results of an earlier benchmark are no change to what is measured."""


def print_where() -> None:
    """Print the machine and the commit."""
    print(f"machine  {machine()}")
    print(f"commit   {commit()}")


def machine() -> str:
    """Processor, usable cores, memory, system and the versions that matter."""
    parts = [_processor(), f"{cores()} cores", f"{memory() / GIB:.0f} GiB", f"{platform.system()} {platform.machine()}"]
    versions = [f"Python {platform.python_version()}", f"torch {version('torch')}", f"Prefect {version('prefect')}"]
    return ", ".join(parts + versions)


def commit() -> str:
    """The commit of the checkout, and whether files differ from it."""
    short = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", NOT_RESULTS)
    return f"{short or 'none'}{' with changes' if changed else ''}"


def code() -> str:
    """Digest of all that a benchmark can run: the packages, the benchmarks and the configs, as they lie there now."""
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
