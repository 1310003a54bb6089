"""A pretended GPU, so that a machine without one finds the places where tensors of two devices would meet.

A pretended tensor says that it is on ``cuda:0`` and holds its numbers on the CPU, where all operators run; the results
are those of the CPU to the last bit. What CUDA refuses is refused here too: operators over tensors of two devices,
``.numpy()``, a CPU generator for numbers drawn on the GPU. Below Python, torch takes a pretended tensor for one on the
CPU, so autograd needs no CUDA. It says nothing about what a real GPU computes, or about operators that lack there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")

aten = torch.ops.aten

INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""A tensor on the GPU may be indexed by one on the CPU, not the other way round."""

BETWEEN_DEVICES = {aten.copy_.default}
TAKES_CPU_NUMBERS = {aten.masked_fill.Tensor, aten.masked_fill_.Tensor, aten.fill.Tensor, aten.fill_.Tensor}
"""Beside the element-wise operators: CUDA takes a CPU tensor without dimensions as a plain number."""

AS_FUNCTION = {torch.sparse_csr_tensor, Tensor.new_tensor}
"""Made of tensors outside of the dispatcher."""


class PretendedTensor(Tensor):
    """A tensor whose numbers are those of the CPU tensor ``held``; strided for torch, whatever the layout of ``held``.

    Args:
        held: a CPU tensor without autograd history.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> PretendedTensor:
        strided = held.layout == torch.strided
        more = {"strides": held.stride(), "storage_offset": held.storage_offset()} if strided else {}
        made = Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=CPU, **more)
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        check_devices(func, args, kwargs or {})
        return on_the_cpu(func, args, kwargs or {}, draws=torch.Tag.nondeterministic_seeded in func.tags)

    @property
    def device(self) -> torch.device:
        return GPU

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    @property
    def layout(self) -> torch.layout:
        return self.held.layout

    def get_device(self) -> int:
        return 0

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        device, args, kwargs = asked_device(args, kwargs)
        there = _Leave.apply(self) if device == CPU else self
        return Tensor.to(there, *args, **kwargs) if args or kwargs else there

    def cpu(self) -> Tensor:
        return _Leave.apply(self)

    def cuda(self, *_: Any, **__: Any) -> Tensor:
        return self

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first (pretended).")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.held.tolist()

    def __repr__(self, **_: Any) -> str:
        return f"pretended({self.held})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        # a checkpoint of CUDA tensors is read as CPU tensors
        return self.held.__reduce_ex__(protocol)


class _Enter(torch.autograd.Function):
    """To the GPU; gradients come back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return PretendedTensor(tensor.detach().clone())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return held_of(grads[0]).clone()


class _Leave(torch.autograd.Function):
    """From the GPU."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return held_of(tensor).clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return PretendedTensor(held_of(grads[0]).clone())


class _Mode(TorchFunctionMode):
    """Sees the calls that ask for a device before torch looks for a driver."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.to, Tensor.cuda):
            return _moved(func, args, kwargs)
        if func is Tensor.backward:
            with self:  # torch turns a mode off while it is asked, and here that would be the whole backward pass
                return _backward(args[0])
        device = kwargs.get("device")
        if device is not None:
            return _made(func, args, kwargs, torch.device(device))
        if func in AS_FUNCTION and any(isinstance(leaf, PretendedTensor) for leaf in tree_leaves((args, kwargs))):
            check_devices(func, args, kwargs)
            return on_the_cpu(func, args, kwargs)
        return func(*args, **kwargs)


def _backward(loss: Tensor) -> None:
    """``loss.backward()`` below the Python functions that a mode may replace."""
    run = torch.autograd.Variable._execution_engine.run_backward
    run((loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True)


def _moved(func: Any, args: Any, kwargs: Any) -> Tensor:
    tensor, rest = args[0], args[1:]
    device, more, options = asked_device(rest, kwargs)
    if device == CPU or (device is None and func is Tensor.to):
        return func(*args, **kwargs)
    there = _Enter.apply(tensor)
    return there.to(*more, **options) if more or options else there


def _made(func: Any, args: Any, kwargs: Any, device: torch.device) -> Any:
    here = {**kwargs, "device": CPU}
    if device.type == "cpu":
        return func(*tree_map(held_of, args), **tree_map(held_of, here))
    _check_generator((args, kwargs))
    wants_gradient = here.pop("requires_grad", False)
    made = on_the_cpu(func, args, here, draws=True)
    return made.requires_grad_() if wants_gradient else made


def asked_device(args: Any, kwargs: Any) -> tuple[torch.device | None, tuple[Any, ...], dict[str, Any]]:
    """The device that ``to`` was asked for, and what it was asked for beside."""
    if args and isinstance(args[0], Tensor):
        return args[0].device, (args[0].dtype, *args[1:]), kwargs
    named = [value for value in (*args, kwargs.get("device")) if isinstance(value, str | torch.device)]
    rest = tuple(value for value in args if not isinstance(value, str | torch.device | bool))
    options = {name: value for name, value in kwargs.items() if name not in ("device", "non_blocking", "copy")}
    return (torch.device(named[0]) if named else None), rest, options


def held_of(value: Any) -> Any:
    """The CPU tensor behind a pretended one; anything else as it is."""
    return value.held if isinstance(value, PretendedTensor) else value


def on_the_cpu(func: Any, args: Any, kwargs: Any, draws: bool = False) -> Any:
    """What ``func`` gives for the tensors behind its arguments, pretended again; the same objects where in place."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    known = {id(held_of(leaf)): leaf for leaf in given}
    with stream() if draws else nullcontext():
        out = func(*tree_map(held_of, args), **tree_map(held_of, kwargs))
    return tree_map(lambda value: _pretended(value, known), out)


def _pretended(value: Any, known: dict[int, Tensor]) -> Any:
    if not isinstance(value, Tensor):
        return value
    return known[id(value)] if id(value) in known else PretendedTensor(value.detach())


def check_devices(func: Any, args: Any, kwargs: Any) -> None:
    """Raise RuntimeError where CUDA would, for arguments of which at least one is pretended."""
    _check_generator((args, kwargs))
    if func in BETWEEN_DEVICES:
        return
    if func in INDEXED:
        args = (args[0], *args[2:])
    writes = isinstance(func, torch._ops.OpOverload) and func._schema.is_mutable
    numbers = func in TAKES_CPU_NUMBERS | INDEXED or torch.Tag.pointwise in getattr(func, "tags", ())
    for place, leaf in enumerate(tree_leaves((args, kwargs))):
        number = numbers and isinstance(leaf, Tensor) and leaf.dim() == 0 and not (writes and place == 0)
        if isinstance(leaf, Tensor) and not isinstance(leaf, PretendedTensor) and not number:
            raise RuntimeError(f"Expected all tensors to be on the same device, but {func} found cuda:0 and cpu.")


def _check_generator(arguments: Any) -> None:
    if any(isinstance(leaf, Generator) for leaf in tree_leaves(arguments)):
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'.")


class _Stream:
    """State of the GPU's own random numbers."""

    def __init__(self) -> None:
        self.seed(0)

    def seed(self, seed: int) -> None:
        self.state = Generator().manual_seed(seed).get_state()

    def get(self, device: Any = GPU) -> Tensor:
        return self.state.clone()

    def set(self, state: Tensor, device: Any = GPU) -> None:
        self.state = state.clone()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Let torch draw on the CPU from this stream."""
        own = torch.get_rng_state()
        torch.set_rng_state(self.state)
        try:
            yield
        finally:
            self.state = torch.get_rng_state()
            torch.set_rng_state(own)


stream = _Stream()


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """Within it torch finds a GPU, and what goes there is pretended."""
    with pytest.MonkeyPatch.context() as patch, _Mode():
        stream.seed(0)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "manual_seed", stream.seed)
        patch.setattr(torch.cuda, "get_rng_state", stream.get)
        patch.setattr(torch.cuda, "set_rng_state", stream.set)
        # else Module.to would move the memory of a pretended tensor, which has none, into the old parameter
        patch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)
        yield GPU
