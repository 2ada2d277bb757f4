"""Small masked autoencoders of images, random batches, and a plain implementation that reads like the papers."""

from fractions import Fraction
from math import floor

import torch
import torch.nn.functional as F

from baselines.mae import MAE
from models.crossmae import CrossMAE
from tests.models.helpers import randomise

SMALL = {
    "image_size": 20,
    "patch_size": 4,
    "width": 24,
    "layers": 3,
    "heads": 2,
    "decoder_width": 16,
    "decoder_layers": 2,
    "decoder_heads": 4,
}
"""25 patches, of which 6 are kept at a mask ratio of 0.75."""

VARIANTS = {
    "mae": (MAE, {}),
    "mae raw pixels": (MAE, {"norm_pix_loss": False, "mask_ratio": 0.4}),
    **{
        f"crossmae {name}": (CrossMAE, options)
        for name, options in {
            "default": {},
            "no input": {"use_input": False},
            "part": {"prediction_ratio": 0.25, "decoder_self_attention": True},
            "plain": {"weighted_feature_maps": False, "use_input": False},
            "plain input": {"weighted_feature_maps": False, "use_input": True, "prediction_ratio": 0.5},
            "plain self": {"weighted_feature_maps": False, "decoder_self_attention": True, "decoder_layers": 1},
            "last": {"feature_layers": [-1], "use_input": False, "decoder_layers": 3},
            "first": {"feature_layers": [0]},
            "first two": {"feature_layers": [-2, 0], "use_input": False, "mask_ratio": 0.9, "prediction_ratio": 0.3},
            "ends": {"feature_layers": (0, 2), "norm_pix_loss": False},
        }.items()
    },
}
"""Name -> class and the options that its tests use beside `SMALL`: every option, and how they meet."""


def build(variant, **options):
    """A small model of a variant, with weights and position tables that all matter."""
    cls, own = VARIANTS[variant]
    return randomise(cls(cls.config_class(**{**SMALL, **own, **options})))


def random_batch(config, images=2, seed=0):
    """The input fields of `masked-image`."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "images": torch.randn(images, 3, config.image_size, config.image_size, generator=generator),
        "noise": torch.rand(images, config.patches, generator=generator),
    }


def meta_batch(config, images=1):
    """The same fields without data, for counting."""
    with torch.device("meta"):
        return {
            "images": torch.empty(images, 3, config.image_size, config.image_size),
            "noise": torch.empty(images, config.patches),
        }


def on_meta(cls, **options):
    """A model of any size without memory."""
    with torch.device("meta"):
        return cls(cls.config_class(**options))


def million(model, *prefixes, trainable=False):
    """Millions of parameters, of those whose name starts with one of the prefixes where given."""
    return (
        sum(
            weight.numel()
            for name, weight in model.named_parameters()
            if name.startswith(prefixes or "") and (weight.requires_grad or not trainable)
        )
        / 1e6
    )


class Plain:
    """MAE and CrossMAE image by image and head by head, straight from the description of the weights."""

    def __init__(self, model):
        self.weights = dict(model.named_parameters())
        self.config = model.config

    def __call__(self, images, noise, predict_all=False):
        predictions, masks = [], []
        for image, draw in zip(images, noise, strict=True):
            prediction, mask = self.one(image, draw.tolist(), predict_all)
            predictions.append(prediction)
            masks.append(mask)
        return {"prediction": torch.stack(predictions), "mask": torch.stack(masks)}

    def one(self, image, draw, predict_all):
        config, weights, count = self.config, self.weights, len(draw)
        ratio = Fraction(str(config.mask_ratio))
        order = sorted(range(count), key=lambda patch: (draw[patch], patch))
        visible = order[: floor(count * (1 - ratio))]
        hidden = order[len(visible) :]
        share = getattr(config, "prediction_ratio", None)
        if share is not None and not predict_all:
            hidden = hidden[floor(count * (ratio - Fraction(str(share)))) :]
        mask = torch.tensor([float(patch in hidden) for patch in range(count)])

        kernel, bias = weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"]
        grid = F.conv2d(image[None], kernel, bias, stride=config.patch_size)[0].flatten(1).T
        table = weights["pos_embed"][0]
        x = torch.stack([weights["cls_token"][0, 0] + table[0], *(grid[p] + table[p + 1] for p in visible)])
        maps = [x]
        for index in range(config.layers):
            x = self.block(f"blocks.{index}", x, config.heads)
            maps.append(x)

        table = weights["decoder_pos_embed"][0]
        if "decoder_embed.weight" in weights:
            x = self.linear("decoder_embed", self.norm("norm", x))
            at = {patch: x[1 + place] for place, patch in enumerate(visible)}
            tokens = [at.get(patch, weights["mask_token"][0, 0]) for patch in range(count)]
            x = torch.stack([x[0], *tokens]) + table
            for index in range(config.decoder_layers):
                x = self.block(f"decoder_blocks.{index}", x, config.decoder_heads)
            x = x[1:]
        else:
            x = torch.stack([weights["mask_token"][0, 0] + table[patch + 1] for patch in sorted(hidden)])
            for index in range(config.decoder_layers):
                x = self.block(f"decoder_blocks.{index}", x, config.decoder_heads, self.source(index, maps))
        return self.linear("decoder_pred", self.norm("decoder_norm", x)), mask

    def source(self, block, maps):
        config = self.config
        if not config.weighted_feature_maps:
            return self.norm("norm", maps[-1])
        numbers = range(config.layers) if config.feature_layers is None else config.feature_layers
        wanted = sorted(config.layers + number if number < 0 else number for number in numbers)
        chosen = [maps[0]] * config.use_input + [maps[1 + number] for number in wanted]
        mixture = F.linear(torch.stack(chosen, dim=-1), self.weights["wfm.linear.weight"])[..., block]
        return self.norm(f"dec_norms.{block}", mixture)

    def block(self, name, x, heads, source=None):
        if source is None:
            x = x + self.self_attention(f"{name}.attn", self.norm(f"{name}.norm1", x), heads)
        else:
            if f"{name}.norm0.weight" in self.weights:
                x = x + self.self_attention(f"{name}.self_attn", self.norm(f"{name}.norm0", x), heads)
            queries = self.linear(f"{name}.cross_attn.q", self.norm(f"{name}.norm1", x))
            keys, values = self.linear(f"{name}.cross_attn.kv", source).chunk(2, dim=-1)
            x = x + self.attention(f"{name}.cross_attn", queries, keys, values, heads)
        hidden = self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm2", x))
        return x + self.linear(f"{name}.mlp.fc2", F.gelu(hidden))

    def self_attention(self, name, x, heads):
        return self.attention(name, *self.linear(f"{name}.qkv", x).chunk(3, dim=-1), heads)

    def attention(self, name, queries, keys, values, heads):
        read = []
        for q, k, v in zip(*(part.chunk(heads, dim=-1) for part in (queries, keys, values)), strict=True):
            read.append((q @ k.T / q.shape[-1] ** 0.5).softmax(dim=-1) @ v)
        return self.linear(f"{name}.proj", torch.cat(read, dim=-1))

    def linear(self, name, x):
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps=1e-6)
