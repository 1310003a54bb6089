"""The synthesize stage: makes a log up if none is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.cache.ref import Ref
from tasks.cache.stage import Stage
from tasks.run import Run


def _write(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    from data.synthetic.log import SyntheticConfig, write_log

    files = write_log(SyntheticConfig.parse(config, "synthetic"), folder)
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}


SYNTHESIZE = Stage("synthesize", 1, _write, code=("data.synthetic.log",))


def synthesize(run: Run) -> Ref:
    """Write the made-up log of the run's preset and seed."""
    return run.execute(SYNTHESIZE, run.config.synthetic.model_dump(mode="json"))
