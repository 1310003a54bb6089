"""How loops are compiled by Numba, and run on several threads."""

from __future__ import annotations

from models.kernels import _inner as inner
from models.kernels import _kernel as kernel
from models.kernels import in_parallel

__all__ = ["in_parallel", "inner", "kernel"]
