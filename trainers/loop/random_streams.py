"""Separate, restorable random streams: no stream changes another, nor the caller's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor


def stream_seed(seed: int, name: str) -> int:
    """Return a seed for the stream ``name``, unrelated to those of other names."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7], "big")


def stream(seed: int, name: str) -> Generator:
    """Return a generator on the CPU for the stream ``name``."""
    return Generator().manual_seed(stream_seed(seed, name))


@contextmanager
def own_global_stream(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, which dropout draws from, and restore the caller's state at the end."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        yield


def global_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of torch's global generators, as tensors."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_global_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Set torch's global generators back to a state that ``global_state`` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
