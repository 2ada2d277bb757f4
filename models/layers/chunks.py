"""Work done in parts that do not know of one another, so that less memory is needed at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_chunks(function: Callable[[Tensor], Tensor], x: Tensor, size: int | None, dim: int) -> Tensor:
    """``function(x)``, made of ``size`` slices along ``dim`` at a time; None, or too few slices to part: at once.

    The function must treat every slice along ``dim`` alike and by itself.
    """
    if size is None or x.shape[dim] <= size:
        return function(x)
    return torch.cat([function(part) for part in x.split(size, dim)], dim)
