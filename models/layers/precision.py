"""Where single precision is kept although the rest runs under autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Switch autocast off for the code inside.

    Camera rays and the tokenisers that read them need it: in bf16 a ray is off by about a third of a pixel on average
    and by more than one at worst.
    """
    # Some device types (meta, on which FLOPs are counted) have no autocast, and torch refuses to switch it off there.
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
