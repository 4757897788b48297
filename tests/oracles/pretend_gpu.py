"""A pretended second device: what would fail on a GPU for want of a transfer fails on a CPU too.

Inside ``with PretendGpu():`` tensors made on or moved to ``cuda`` stay where they are but are marked. Marked tensors
say they are on ``cuda:0``, give marked results, refuse to become numpy arrays, and refuse to meet unmarked ones, if
those have dimensions. What would travel from the GPU is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)
CROSSES = {"copy_", "__getitem__", "__setitem__", "__set__", "_has_compatible_shallow_copy_type"}  # take tensors of two


class PretendGpu(TorchFunctionMode):
    """See the module.

    Attributes:
        left: shapes of what was moved from the GPU to the CPU, in their order, numbers without dimensions left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left: list[tuple[int, ...]] = []

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = dict(kwargs or {}), func.__name__
        descriptor = getattr(func, "__self__", None)  # of a property that is read or set
        if name == "__set__" and descriptor is Tensor.data:
            _mark(args[0], is_marked(args[1]))  # how a module moves its parameters
            return func(*args)
        if name == "__get__":
            if descriptor is Tensor.is_cuda:
                return is_marked(args[0])
            if descriptor is Tensor.device and is_marked(args[0]):
                return GPU
        wanted, args, kwargs = _device_asked_for(name, args, kwargs)
        if name == "numpy" and is_marked(args[0]) and not kwargs.pop("force", False):
            raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        marked = any(is_marked(tensor) for tensor in tensors)
        strangers = [tensor for tensor in tensors if not is_marked(tensor) and tensor.ndim > 0]
        # A tensor of the GPU may be indexed by one of the CPU, not the other way round.
        if marked and strangers and (name not in CROSSES or (name == "__getitem__" and not is_marked(args[0]))):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, found cuda:0 and cpu")
        out = func(*args, **kwargs)
        if wanted is not None and name in ("to", "cpu", "cuda"):
            out = out.detach().clone()
            if wanted.type == "cpu" and marked and out.ndim > 0:
                self.left.append(tuple(out.shape))
        on_gpu = marked if wanted is None else wanted.type == "cuda"
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and name != "copy_":
                _mark(leaf, on_gpu)
        return out


def is_marked(tensor: Tensor) -> bool:
    """Whether a tensor pretends to be on the GPU."""
    return vars(tensor).get("on_gpu", False)


def _mark(tensor: Tensor, on_gpu: bool) -> None:
    vars(tensor)["on_gpu"] = on_gpu


def _device_asked_for(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[torch.device | None, tuple[Any, ...], dict[str, Any]]:
    """The device that a call names, if any, and the call without it."""
    asked = kwargs.pop("device", None)
    if name == "cpu":
        return torch.device("cpu"), args, kwargs
    if name == "to":
        moved, *rest = args
        target = rest[0] if rest else kwargs.pop("other", None)
        if isinstance(target, torch.dtype):
            return None, args, kwargs
        if isinstance(target, Tensor):
            return (GPU if is_marked(target) else target.device), (moved, target.dtype), kwargs
        dtypes = [more for more in (*rest[1:], kwargs.pop("dtype", None)) if isinstance(more, torch.dtype)]
        asked, args = (asked if target is None else target), (moved, *(dtypes or [moved.dtype]))
    return (None if asked is None else torch.device(asked)), args, kwargs
