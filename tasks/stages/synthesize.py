"""Stage 0, only where no log is given: a synthetic one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.cache.ref import Ref
from tasks.cache.stage import Stage
from tasks.run_config import RunConfig


def _write(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    from data.synthetic.log import SyntheticConfig, write_log

    files = write_log(SyntheticConfig.parse(config, "synthetic"), folder)
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}


SYNTHESIZE = Stage("synthesize", 1, _write, code=("data.synthetic.log",))


def synthesize(run: RunConfig) -> Ref:
    """Write the made-up log of the run's preset and seed."""
    return SYNTHESIZE(run, run.synthetic_config().model_dump(mode="json"))
