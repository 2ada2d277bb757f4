"""The processes that share one run (torchrun). Rank 0's clock is the clock: what it decides, all ranks do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist


class World:
    """This process's place among the processes of a run; alone unless a process group is initialised."""

    def __init__(self) -> None:
        """Read the initialised default process group, if any."""
        self._together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if self._together else 0
        self.size = dist.get_world_size() if self._together else 1

    def agree(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Rank 0's `values` on every rank (exact: float64)."""
        if not self._together:
            return list(values)
        where = device if dist.get_backend() == "nccl" else torch.device("cpu")
        shared = torch.tensor(values, dtype=torch.float64, device=where)
        dist.broadcast(shared, src=0)
        return shared.tolist()
