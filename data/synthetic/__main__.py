"""``python -m data.synthetic --help``: writes the synthetic log as files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from data.errors import InputError
from data.synthetic.log import PRESETS, SyntheticConfig, write_log


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data.synthetic",
        description="Write a made-up listening log as Parquet, for `python -m flows.train --events FOLDER`.",
        epilog="Presets: "
        + "; ".join(f"{name}: {c['num_users']:,} users, {c['num_events']:,} listens" for name, c in PRESETS.items()),
    )
    parser.add_argument(
        "--preset", choices=list(PRESETS), default="small", help="size of the log (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed gives another world (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="folder to write events-*.parquet into"
    )
    for name in ("users", "songs", "artists", "events", "days"):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"number of {name} (default: the preset's)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Write a log as the command line says; return 0, or 2 after printing an error."""
    given = vars(_parser().parse_args(arguments))
    counts = {f"num_{name}": given[name] for name in ("users", "songs", "artists", "events", "days")}
    try:
        config = SyntheticConfig.parse({"preset": given["preset"], "seed": given["seed"], **counts}, "synthetic")
        files = write_log(config, given["out"])
    except (InputError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"{config.count('num_events'):,} listens in {len(files)} file(s) in {given['out']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
