"""Text towers: names as token ids, 0 for padding, to one vector each; and a cache for a tower whose weights stand still.

The small one reads bytes and is learned from scratch; others are in `models.layers.minilm` and `models.layers.clip_towers`.

Axes: N texts, L tokens of a text, D width, C channels of the features that meet the image.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from models.layers.precision import full_precision
from models.layers.sincos import sincos
from models.layers.vit import Block, block_flops, layer_norm

BYTES = 256
"""Ids of the byte tokenizer, UTF-8 as it is; no name holds byte 0, which is padding."""


class TextTower(Protocol):
    """What CAT-Seg asks of a text tower, beside being a module."""

    encoded_width: int
    """E."""
    unread: tuple[str, ...]
    """Prefixes of weights that `encode` does not read, such as those of an image tower in the same module."""

    def encode(self, tokens: Tensor) -> Tensor:
        """[N, L] int64 -> [N, E]; what a frozen tower can do once for all."""
        ...

    def project(self, encoded: Tensor) -> Tensor:
        """[N, E] -> [N, C]; what is learned in any case."""
        ...

    def encode_flops(self, length: int) -> int:
        """Of `encode` on one text: 2 per multiply-add."""
        ...

    def project_flops(self) -> int:
        """Of `project` on one text, likewise."""
        ...


def readable(tokens: Tensor) -> Tensor:
    """Mark [N, L] tokens that are no padding; the first one in any case, so that an empty text has something to read."""
    mask = tokens != 0
    return mask | (torch.arange(tokens.shape[-1], device=tokens.device) == 0)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens of ``x`` [N, L, D] where ``mask`` [N, L] is True -> [N, D]."""
    weights = mask.to(x.dtype)[..., None]
    return (x * weights).sum(1) / weights.sum(1)


class SmallTextTower(nn.Module):
    """Blocks of self-attention over the tokens of a name, whose mean is its feature; texts may be of any length.

    Without blocks it is the mean of what each token says at its place: a token adds the same beside any others.
    """

    unread: tuple[str, ...] = ()

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, channels: int) -> None:
        super().__init__()
        self.encoded_width = channels
        self.token_embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.token_embedding.weight, std=width**-0.5)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = layer_norm(width)
        self.proj = nn.Linear(width, channels)

    def encode(self, tokens: Tensor) -> Tensor:
        """[N, L] -> [N, C]."""
        mask = readable(tokens)
        places = torch.arange(tokens.shape[1], device=tokens.device, dtype=torch.float32)
        x = self.token_embedding(tokens)
        x = x + sincos(places, x.shape[-1]).to(x.dtype) * x.shape[-1] ** -0.5
        for block in self.blocks:
            x = block(x, mask[:, None, None])
        return self.proj(masked_mean(self.norm(x), mask))

    def project(self, encoded: Tensor) -> Tensor:
        """Nothing is left to do."""
        return encoded

    def encode_flops(self, length: int) -> int:
        """Of one text."""
        return len(self.blocks) * block_flops(length, self.proj.in_features) + 2 * self.proj.weight.numel()

    def project_flops(self) -> int:
        """None."""
        return 0


class TextCache:
    """What a tower made of texts that it has read, by their tokens, for as long as its weights stay as they are.

    Not part of the model's state. A copy of the model starts with an empty one. Weights that were made under inference mode
    tell nobody that they change: through them all is read anew in every call.

    Texts are looked up on the host, so each call waits until a GPU has done what it was given before. A table on the GPU
    would wait as well, to learn whether a text is missing.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, int] = {}
        self._encoded: Tensor | None = None
        self._versions: list[tuple[int, int]] | None = None
        self._weights: list[nn.Parameter] = []

    def encode(self, tower: TextTower, tokens: Tensor) -> Tensor:
        """[N, L] -> [N, E], read by ``tower`` where they have not been, in fp32 and without gradients."""
        assert isinstance(tower, nn.Module)
        # A load, a step and all else that writes into a weight raise its version; moving it to a device does not change it. The
        # weights themselves are kept, so that no other one can ever have their identity.
        weights = [weight for name, weight in tower.named_parameters() if not name.startswith(tower.unread)]
        versioned = not any(weight.is_inference() for weight in weights)
        versions = [(id(weight), weight._version) for weight in weights] if versioned else None
        if versions is None or versions != self._versions:
            self._rows, self._encoded, self._versions, self._weights = {}, None, versions, weights
        keys = [row.tobytes().rstrip(b"\0") for row in tokens.cpu().numpy()]
        missing = {key: place for place, key in enumerate(keys) if key not in self._rows}
        if missing:
            # Not under inference mode, whose tensors training could not use later.
            with torch.inference_mode(False), torch.no_grad(), full_precision(tokens.device):
                texts = tokens[list(missing.values())].clone()
                # One by one: rounding must not tell which texts were read together, or a resumed run would not be the same.
                new = [tower.encode(text) for text in texts.split(1)]
                known = [] if self._encoded is None else [self._encoded.to(tokens.device)]
                self._encoded = torch.cat([*known, *new])
            self._rows |= {key: len(self._rows) + number for number, key in enumerate(missing)}
        assert self._encoded is not None
        self._encoded = self._encoded.to(tokens.device)
        return self._encoded[torch.tensor([self._rows[key] for key in keys], device=tokens.device)]

    def __deepcopy__(self, memo: dict[int, object]) -> TextCache:
        return TextCache()
