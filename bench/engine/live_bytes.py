"""How many bytes of tensors are alive at once while something runs: exact, repeatable, the same on every device."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.engine.memory import Peak


def peak_live_bytes(run: Callable[[], object]) -> int:
    """Largest number of bytes held at one moment by tensors that operators made while `run()` ran.

    Counts what autograd saves, gradients and intermediate results, each storage once; neither what was there before nor
    what an operator takes inside itself. A device's own meter is the better measure of what fits; this one has no noise.
    """
    with _LiveBytes() as live:
        run()
    return live.peak


class TensorMeter:
    """Bytes of tensors that are alive at once between `start` and `peak`, as a device's meter tells them (`MemoryMeter`)."""

    def limit(self) -> int:
        """There is none: the largest number of bytes."""
        return sys.maxsize

    def start(self) -> None:
        """Begin to count, from nothing."""
        self._live = _LiveBytes()
        self._live.__enter__()

    def peak(self) -> Peak:
        """Most bytes held at once since `start`; counting ends."""
        self._live.__exit__(None, None, None)
        return Peak(self._live.peak, retries=0)


class _LiveBytes(TorchDispatchMode):
    """Adds up the storages that operators return, and takes each off again when it dies."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        before = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in before:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self.now += size
        self.peak = max(self.peak, self.now)

        def gone(_: Any) -> None:
            if self._known.pop(key, None) is not None:
                self.now -= size

        self._known[key] = weakref.ref(storage, gone)
