"""Host batches in stream order, made ahead in the background where the device computes apart from the host."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from bench.contracts import Batch, Task
from bench.engine.stream import SampleStream

DIGEST_POSITIONS = 32
"""Positions of the stream that runs are compared by: as few as any run that means something gets to see."""


class Loader:
    """Serves the share of one process in each optimiser batch, by position in the stream."""

    def __init__(
        self,
        task: Task,
        stream: SampleStream,
        *,
        batch: int,
        rank: int = 0,
        world: int = 1,
        ahead: int = 0,
        pin: bool = False,
    ) -> None:
        """Serve `batch` samples at a time to each of `world` processes; make `ahead` batches in advance, pinned if `pin`."""
        self._task, self._stream = task, stream
        self._batch, self._rank, self._world = batch, rank, world
        self._ahead, self._pin = ahead, pin
        self._next = 0
        self._waiting: deque[Future[Batch]] = deque()
        self._served: dict[int, tuple[int, int]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="loader") if ahead else None

    def seek(self, position: int) -> None:
        """Go to a stream position (a multiple of the optimiser batch), once nothing is being made any more."""
        for waiting in self._waiting:
            if not waiting.cancel():
                waiting.exception()  # waits; an error of a batch that nobody asked for is nobody's
        self._waiting.clear()
        self._next = position
        self._note(0, position)

    def _note(self, start: int, count: int) -> None:
        """Remember what stood at the first positions of the stream."""
        count = min(count, DIGEST_POSITIONS - start)
        if count > 0:
            indices, draws = self._stream.take(start, count)
            pairs = zip(indices.tolist(), draws.tolist(), strict=True)
            self._served.update(zip(range(start, start + count), pairs, strict=True))

    @property
    def digest(self) -> str | None:
        """SHA-256 of the first samples and draws of the stream that was served, None if it was shorter than that."""
        if len(self._served) < DIGEST_POSITIONS:
            return None
        return hashlib.sha256(repr(sorted(self._served.items())).encode()).hexdigest()

    def _make(self, start: int) -> Batch:
        self._note(start, self._batch * self._world)
        indices, draws = self._stream.take(start + self._rank * self._batch, self._batch)
        batch = self._task.collate(indices, draws)
        return {name: field.pin_memory() for name, field in batch.items()} if self._pin else batch

    def _start_next(self) -> int:
        start = self._next
        self._next += self._batch * self._world
        return start

    def take(self) -> Batch:
        """The next host batch."""
        if self._pool is None:
            return self._make(self._start_next())
        while len(self._waiting) <= self._ahead:
            self._waiting.append(self._pool.submit(self._make, self._start_next()))
        return self._waiting.popleft().result()

    def close(self) -> None:
        """Stop the background thread."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def host_copy(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous copies of `tensors` on the host that later steps do not change."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
