"""Parts of CAT-Seg that are counted or timed on their own, and its aggregator executed the published way.

Axes: one picture, T classes, P prompts, L tokens, C width of the features, h x w grid, N places of it, D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import registry
from bench.contracts import Batch

GUIDANCE = ("guidance_0", "guidance_1", "guidance_2")


def function(module: str, name: str) -> Any:
    """A function or class of ``models.layers``."""
    return registry.load_object(f"models.layers.{module}:{name}", "layer")


def places(config: Any) -> int:
    """N."""
    return int(config.resolution[0] * config.resolution[1])


def guidance_shapes(config: Any) -> dict[str, list[int]]:
    """Shapes of the guidances that an aggregator reads."""
    widths = (config.appearance_guidance_width, *config.decoder_guidance_widths)
    sources = (config.appearance_guidance[0], *config.decoder_guidance[0])
    height, width = config.resolution
    return {
        name: [1, source, height << number, width << number]
        for number, (name, source, used) in enumerate(zip(GUIDANCE, sources, widths, strict=True))
        if used
    }


def aggregator_shapes(config: Any, classes: int) -> dict[str, list[int]]:
    """Shapes of what an aggregator reads."""
    features = {
        "image_features": [1, config.feature_width, *config.resolution],
        "text_features": [1, classes, config.prompts, config.feature_width],
    }
    return features | guidance_shapes(config)


class Piece(nn.Module):
    """Modules that do one job, with the function that does it and its closed form."""

    def __init__(self, modules: Iterable[nn.Module | None], run: Callable[..., Tensor], flops: int) -> None:
        """Take the modules, whose weights are those of the job, and what is run on the inputs."""
        super().__init__()
        self.kept = nn.ModuleList(module for module in modules if module is not None)
        self.run, self.closed_form = run, flops

    def forward(self, **inputs: Tensor) -> Tensor:
        """What `run` makes of the inputs."""
        return self.run(**inputs)

    def flops(self, batch: Batch) -> int:
        """Closed form; the batch's sizes are known already."""
        return self.closed_form


# ---------------------------------------------------------------------------------------------------------- the aggregator

PIECES = ("cost", "embedding", "guidance", "spatial", "classes", "decoder1", "decoder2", "head")


def piece_shapes(config: Any, part: str, classes: int) -> dict[str, list[int]]:
    """Shapes of what a piece of the aggregator reads."""
    height, width = config.resolution
    hidden, (first, second) = config.hidden_width, config.decoder_widths
    maps = [1, classes, height, width, hidden]
    coarse, fine = config.decoder_guidance_widths
    whole = aggregator_shapes(config, classes)
    shapes: dict[str, dict[str, list[int]]] = {
        "cost": {name: whole[name] for name in ("image_features", "text_features")},
        "embedding": {"cost": [1, classes, config.prompts, height, width]},
        "guidance": {name: shape for name, shape in whole.items() if name != "image_features"},
        "spatial": {"x": maps, "appearance": [1, height, width, config.appearance_guidance_width]},
        "classes": {"x": maps, "text": [1, classes, config.text_guidance_width]},
        "decoder1": {"x": [1, classes, hidden, height, width], "guidance": [1, coarse, 2 * height, 2 * width]},
        "decoder2": {"x": [1, classes, first, 2 * height, 2 * width], "guidance": [1, fine, 4 * height, 4 * width]},
        "head": {"x": [1, classes, second, 4 * height, 4 * width]},
    }
    return shapes[part]


def piece(model: Any, part: str, classes: int) -> Piece:
    """One of `PIECES` of an aggregator with every guidance, in evaluation; all its layers where it has several."""
    config = model.config
    n, d = places(config), config.hidden_width
    if part == "cost":
        run = function("cost_volume", "cost_volume")
        flops = 2 * n * classes * config.prompts * config.feature_width
        return Piece([], lambda image_features, text_features: run(image_features, text_features), flops)
    if part == "embedding":
        embed = function("cost_volume", "embed_cost")
        flops = 2 * n * model.conv1.weight[0].numel() * d * classes
        return Piece([model.conv1], lambda cost: embed(model.conv1, cost), flops)
    if part == "guidance":
        return _guidance(model, classes)
    if part == "spatial":
        blocks = [layer.swin_block for layer in model.layers]
        flops = classes * function("windowed_blocks", "windowed_flops")(config.resolution, config.window_size, d)
        flops += function("windowed_blocks", "windowed_guidance_flops")(n, config.appearance_guidance_width, d)

        def over_space(x: Tensor, appearance: Tensor) -> Tensor:
            for block in blocks:
                x = block(x, block.guide(appearance))
            return x

        return Piece(blocks, over_space, config.layers * flops)
    if part == "classes":
        layers, tokens = [layer.attention for layer in model.layers], max(classes, config.padding)
        pooled = n // (config.pooling_size[0] * config.pooling_size[1])
        flops = function("class_attention", "class_flops")(pooled, tokens, d, config.heads, config.attention)
        flops += function("class_attention", "class_guidance_flops")(tokens, config.text_guidance_width, d)

        def over_classes(x: Tensor, text: Tensor) -> Tensor:
            for block in layers:
                x = block(x, text, tuple(config.pooling_size))
            return x

        return Piece(layers, over_classes, config.layers * flops)
    if part == "head":
        return Piece([model.head], lambda x: model.head(x[0]), 18 * classes * 16 * n * config.decoder_widths[1])
    second = part == "decoder2"
    up = model.decoder2 if second else model.decoder1
    sources = 4 * n if second else n, config.decoder_widths[0] if second else d
    width, beside = config.decoder_widths[second], config.decoder_guidance_widths[second]
    flops = classes * function("guided_decoder", "up_flops")(*sources, width, beside)
    flops += function("guided_decoder", "up_guidance_flops")(sources[0], width, beside)
    return Piece([up], lambda x, guidance: up(x[0], up.guide(guidance)), flops)


def _guidance(model: Any, classes: int) -> Piece:
    """The projections of every guidance."""
    config, mean = model.config, function("cost_volume", "mean_text")
    projections = [model.guidance_projection, *model.decoder_guidance_projection]

    def project(text_features: Tensor, **guidance: Tensor) -> Tensor:
        made = [project(guidance[name]) for name, project in zip(GUIDANCE, projections, strict=True)]
        made.append(model.text_guidance_projection(mean(text_features)))
        return torch.cat([each.flatten() for each in made])

    pairs = zip((config.appearance_guidance[0], *config.decoder_guidance[0]),
                (config.appearance_guidance_width, *config.decoder_guidance_widths), strict=True)  # fmt: skip
    maps = sum(18 * (places(config) << 2 * number) * one * two for number, (one, two) in enumerate(pairs))
    flops = maps + 2 * classes * config.text_guidance[0] * config.text_guidance_width
    return Piece([*projections, model.text_guidance_projection], project, flops)


class AsPublished(nn.Module):
    """An aggregator executed as its published code does: what guides is projected anew for each class and each place.

    The same modules with the same weights: every class is given to the spatial blocks and to the decoder as a picture of its
    own, every place to the class blocks as one. The feature volume is made and convolved whole.
    """

    def __init__(self, model: Any) -> None:
        """Take the aggregator."""
        super().__init__()
        self.model = model

    def forward(self, image_features: Tensor, text_features: Tensor, **guidance: Tensor) -> Tensor:
        """Logits [1, T, 4h, 4w] of one picture; shapes as the aggregator has them."""
        model, config, text = self.model, self.model.config, text_features
        classes, kept = text.shape[1], None
        if 0 < config.padding < classes:
            cost = function("cost_volume", "cost_volume")(image_features, text)
            kept = function("cost_volume", "best_classes")(cost, config.padding)
            text = function("cost_volume", "pick")(F.normalize(text, dim=-1), kept)
        x = self._embed(image_features, text)
        appearance = self._projected(model.guidance_projection, guidance, 0, len(x))
        of_text = None
        if model.text_guidance_projection is not None:
            of_text = model.text_guidance_projection(function("cost_volume", "mean_text")(text))
        for layer in model.layers:
            spatial = layer.swin_block or layer.conv_block
            if spatial is not None:
                guided = None if appearance is None else spatial.guide(appearance.permute(0, 2, 3, 1))
                x = spatial(x[:, None], guided)[:, 0]
            if layer.attention is not None:
                x = self._over_classes(layer.attention, x, of_text)
        maps = x.permute(0, 3, 1, 2)
        for number, up in enumerate((model.decoder1, model.decoder2) if config.decoder else ()):
            projections = model.decoder_guidance_projection
            given = self._projected(projections and projections[number], guidance, 1 + number, len(x))
            maps = up(maps, None if given is None else up.guide(given))
        logits: Tensor = model.head(maps)[:, 0][None]
        if kept is None:
            return logits
        everywhere = logits.new_full((1, classes, *logits.shape[2:]), -100.0)
        return everywhere.scatter(1, kept[..., None, None].expand_as(logits), logits)

    def _embed(self, image: Tensor, text: Tensor) -> Tensor:
        """[T, h, w, D]."""
        convolution, config = self.model.conv1, self.model.config
        if config.volume == "cost":
            volume = function("cost_volume", "cost_volume")(image, text)[0]
        else:
            vectors = function("cost_volume", "mean_text")(F.normalize(text, dim=-1))[0, :, :, None, None]
            pictures = F.normalize(image, dim=1).expand(len(vectors), -1, -1, -1)
            volume = torch.cat([pictures, vectors.expand(-1, -1, *image.shape[2:])], dim=1)
        maps: Tensor = convolution(volume)
        return maps.permute(0, 2, 3, 1)

    @staticmethod
    def _projected(projection: Any, guidance: Batch, number: int, classes: int) -> Tensor | None:
        """A projected guidance [T, G, h, w], the same for every class; None where it is not read."""
        name = GUIDANCE[number]
        if projection is None or name not in guidance:
            return None
        made: Tensor = projection(guidance[name])
        return made.expand(classes, -1, -1, -1)

    def _over_classes(self, block: Any, x: Tensor, text: Tensor | None) -> Tensor:
        """[T, h, w, D] -> [T, h, w, D]."""
        pooling, size = self.model.config.pooling(training=self.training), x.shape[1:3]
        maps = x.permute(0, 3, 1, 2)
        pooled = maps if pooling == (1, 1) else F.avg_pool2d(maps, pooling)
        tokens, guided = pooled.flatten(2).permute(2, 0, 1), None
        if text is not None:
            fillers, _ = block.slots(len(x))
            if block.padding_guidance is not None and fillers:
                text = torch.cat([text, block.padding_guidance.expand(1, fillers, -1)], dim=1)
            guided = block.attention.guide(text.expand(len(tokens), -1, -1))
        tokens = block.mix(tokens[:, None], guided)[:, 0]
        pooled = tokens.permute(1, 2, 0).unflatten(2, pooled.shape[2:])
        if pooling != (1, 1):
            pooled = F.interpolate(pooled, size, mode="bilinear", align_corners=True)
        return x + pooled.permute(0, 2, 3, 1)

    def flops(self, batch: Batch) -> int:
        """Closed form."""
        return int(self.model.published_flops(batch))


# -------------------------------------------------------------------------------------------------------------- the towers


def image_tower(model: Any) -> Piece:
    """The image tower of a CAT-Seg on CLIP, or the separate backbone that it has beside it."""
    if model.backbone is not None:
        backbone = model.backbone.requires_grad_(True)
        return Piece([backbone], lambda image: _last(backbone(image)), backbone.flops())
    tower = model.image_tower
    return Piece([model.clip.visual.requires_grad_(True), tower], lambda image: _last(tower(image)), tower.flops())


def text_tower(model: Any, classes: int, length: int) -> Piece:
    """CLIP's text tower of a CAT-Seg, on texts of so many tokens."""
    clip = model.clip.requires_grad_(True)
    flops = classes * clip.encode_flops(length)
    made = Piece([clip.transformer, clip.token_embedding, clip.ln_final], lambda tokens: clip.encode(tokens[0]), flops)
    made.tables = nn.ParameterList([clip.positional_embedding, clip.text_projection])
    return made


def _last(maps: Any) -> Tensor:
    """All maps of an image in one row."""
    made = [each for each in (maps.features, *maps.guidance) if each is not None]
    return torch.cat([each.flatten() for each in made])


class Picture(nn.Module):
    """A picture through the configured windows, to probabilities of its own size; the texts were read before."""

    def __init__(self, model: Any) -> None:
        """Take CAT-Seg."""
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """[1, 3, H, W] and [T, P, C] -> probabilities [1, T, H, W]."""
        made: Tensor = self.model.segment(image, text, tuple(image.shape[2:]))
        return made

    def flops(self, batch: Batch) -> int:
        """Closed form: towers for each window, the aggregator for all."""
        model, config, text = self.model, self.model.config, batch["text"]
        windows = config.windows.count
        each = model.image_tower.flops() + (0 if model.backbone is None else model.backbone.flops())
        maps = torch.empty(windows, config.feature_width, *config.resolution, device="meta")
        return int(windows * each + model.aggregator.flops({"image_features": maps, "text_features": text[None]}))
