"""The program that runs in Flower's environment: ``python -m trainers.federated.flower_main FOLDER``.

It writes why it failed into the folder, in one sentence. Flower is imported where it is used, so that every process may
import this module to name the program.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from data.errors import InputError
from trainers.federated.shared_folder import FederationSpec, SharedFolder


def main(folder: Path) -> None:
    """Run the federation that lies in ``folder``."""
    from trainers.federated.flower_server import run  # Flower's packages are in its own environment only

    shared_folder = SharedFolder(folder)
    torch.set_num_threads(1)  # a client's work is small, and Ray gives each one a core
    try:
        run(shared_folder, FederationSpec.read(shared_folder.spec))
    except Exception as error:
        sentence = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        shared_folder.failed.write_text(sentence, encoding="utf-8")
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]))
