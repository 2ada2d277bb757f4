"""Bytes of tensors that are alive at once."""

from __future__ import annotations

import pytest
import torch

from bench.engine.live_bytes import peak_live_bytes


def test_live_bytes_counts_what_is_alive_at_once() -> None:
    megabyte = 2**20

    def chain() -> None:
        first = torch.zeros(megabyte, dtype=torch.uint8)
        for _ in range(5):
            second = first + 1
            view = second[10:]
            view.add_(1)
            del second, view

    def saved() -> None:
        weight = torch.ones(megabyte // 4, requires_grad=True)
        for _ in range(4):
            weight = weight.sin()
        weight.sum()

    assert peak_live_bytes(chain) == 2 * megabyte
    assert peak_live_bytes(saved) == pytest.approx(5 * megabyte, rel=0.01)
