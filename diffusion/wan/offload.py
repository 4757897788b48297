"""Where the parts of a model are: all on a device, or those that do not run in main memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

Offloading = Literal["none", "stages", "blocks"]
_Entry = TypeVar("_Entry", Tensor, Tensor | str | None)  # of a memory


class Placement:
    """Which parts of a model are on its device.

    Weights do not change: they are copied to the device when they are needed and dropped there, never copied back.

    Attributes:
        device: where every part runs.
        mode: ``none``: all parts stay there. ``stages``: one part at a time (the VAE's encoder, the transformer,
            the decoder), and what is remembered waits in main memory as well. ``blocks``: besides, of the transformer's
            blocks only the one that runs.
    """

    def __init__(self, device: str | torch.device, mode: Offloading = "none") -> None:
        self.device, self.mode = torch.device(device), mode
        self._modules: tuple[nn.Module, ...] = ()
        self._leave: Callable[[], None] | None = None
        self._streamed: set[nn.Module] = set()
        self._waiting: dict[tuple[nn.Module, ...], list[tuple[Tensor, Tensor]]] = {}

    @property
    def home(self) -> torch.device:
        """Where weights are while they do not run."""
        return self.device if self.mode == "none" else torch.device("cpu")

    def enter(self, *modules: nn.Module, leave: Callable[[], None] | None = None) -> None:
        """Have modules on the device, and those of the call before no longer.

        Args:
            modules: what runs next.
            leave: called when others take their place, to free what they have made there.
        """
        if self.mode == "none" or modules == self._modules:
            return
        if self._leave is not None:
            self._leave()
        self._drop(self._modules)
        self._modules, self._leave = modules, leave
        self._copy(modules)

    def stream(self, blocks: Sequence[nn.Module]) -> None:
        """Have each of these modules on the device only while it runs, where the mode is ``blocks``."""
        if self.mode == "blocks":
            self._streamed.update(blocks)
            for block in blocks:
                block.register_forward_pre_hook(lambda block, _: self._copy((block,)))
                block.register_forward_hook(lambda block, *_: self._drop((block,)), always_call=True)

    def there(self, entry: _Entry) -> _Entry:
        """A tensor on the device; anything else as it is."""
        return entry.to(self.device) if isinstance(entry, Tensor) else entry

    def kept(self, entry: _Entry) -> _Entry:
        """A tensor where it waits to be used again; anything else as it is."""
        return entry.to(self.home) if isinstance(entry, Tensor) else entry

    def _copy(self, modules: tuple[nn.Module, ...]) -> None:
        waiting = [(weight, weight.data) for module in modules for weight in self._weights(module)]
        self._waiting[modules] = waiting
        for weight, data in waiting:
            weight.data = data.to(self.device)

    def _drop(self, modules: tuple[nn.Module, ...]) -> None:
        for weight, data in self._waiting.pop(modules, ()):
            weight.data = data

    def _weights(self, module: nn.Module) -> Iterator[Tensor]:
        """Parameters and buffers, without those of blocks inside that come by themselves."""
        yield from module.parameters(recurse=False)
        yield from module.buffers(recurse=False)
        for child in module.children():
            if child not in self._streamed:
                yield from self._weights(child)
