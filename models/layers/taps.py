"""Tokens inside a model that a distillation loss reads."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from models.layers.repa import STREAMS, Repa, RepaConfig


class Taps:
    """Picks up what REPA asks for while a model runs in training mode, and nothing otherwise."""

    def __init__(self, repa: Repa | None = None, *, training: bool = False) -> None:
        self.outputs: dict[str, Tensor] = {}
        self._wanted: dict[str, frozenset[int]] = {}
        if repa is not None and training:
            self._wanted = {stream: repa.taps(stream) for stream in ("input", "target")}

    def wants(self, stream: str, layer: int) -> bool:
        """Whether the tokens of ``stream`` (input or target) behind ``layer``, counted from 1, shall be kept."""
        return layer in self._wanted.get(stream, ())

    def keep(self, stream: str, layer: int, tokens: Tensor) -> None:
        """Put [B, V, P, D] into ``outputs`` under ``repa.STREAM.LAYER``."""
        self.outputs[f"repa.{stream}.{layer}"] = tokens


def require_taps(repa: RepaConfig | None, inputs: Collection[int], targets: Collection[int]) -> None:
    """Raise ValueError unless the model has all layers that ``repa`` pairs, in each stream that it distils."""
    if repa is None:
        return
    for stream in STREAMS[repa.on]:
        layers = inputs if stream == "input" else targets
        for _, layer in repa.pairs:
            if layer not in layers:
                known = f"those are {', '.join(map(str, layers))}" if layers else "there are none"
                raise ValueError(
                    f"repa.pairs: the {stream}s have no layer {layer}, {known}: name another one, or choose repa.on"
                )
