"""MixFormer on CvT: a tracker whose backbone extracts and compares template and search picture in the same attention.

Cui et al., "MixFormer: End-to-End Tracking with Iterative Mixed Attention" (CVPR 2022), and its published code. Three
pictures, the target as it was given (template), the target as it was last seen well (online template) and the search
picture, go through three stages of convolutional embedding and mixed attention. A corner head reads the box from the search
map. In the asymmetric design templates do not read the search picture, so their keys and values can be kept over frames.

Axes: B samples, n online templates, t edge of a template and s of the search picture in pixels, C channels of the last
stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from models.layers.config import build_config, require_bool, require_choice, require_positive
from models.layers.conv_attention import (
    ConvEmbed,
    KeysValues,
    Layout,
    Maps,
    MixedBlock,
    embed_flops,
    mixed_block_flops,
    to_maps,
)
from models.layers.corner_head import HEAD_MULTIPLE, CornerHead, corner_head_flops
from models.layers.score_branch import ScoreBranch
from models.layers.vit import require_divisible
from models.reference import load_strictly, unwrap_keys

ATTENTIONS = ("asymmetric", "symmetric")
STAGES = 3
STRIDE = 16
"""Pixels between two cells of the last stage."""
EMBED_KERNELS = (7, 3, 3)
EMBED_STRIDES = (4, 2, 2)
SMALLEST = 3
"""Pixels of the smallest picture that the first embedding can read."""
WEIGHT_STD = 0.02
"""Standard deviation of initial linear weights."""
DEAD_WEIGHTS = frozenset(f"backbone.{part}.{kind}" for part in ("norm", "head") for kind in ("weight", "bias"))
"""Weights of published checkpoints that nothing reads: the classifier of CvT's pretraining and the norm before it."""
SCORE_SUBTREE = "score_branch."


@dataclass(frozen=True)
class MixFormerCvTConfig:
    """Size and variant of the model; the defaults are the published tracker on CvT-21."""

    search_size: int = 320
    """Edge of the square search pictures in pixels; odd ones too."""
    template_size: int = 128
    """Edge of the square templates in pixels."""
    widths: Sequence[int] = (64, 192, 384)
    """Channels of each stage; a multiple of its heads."""
    layers: Sequence[int] = (1, 4, 16)
    """Blocks of each stage."""
    heads: Sequence[int] = (1, 3, 6)
    """Attention heads of each stage."""
    head_width: int = 384
    """Channels of the corner head's first convolution; a multiple of 8."""
    attention: str = "asymmetric"
    """``asymmetric``: templates read templates, the search picture reads everything. ``symmetric``: everything reads
    everything, so nothing of the templates but their first embedding can be kept over frames."""
    drop_path: Sequence[float] = (0.0, 0.0, 0.1)
    """Probability of dropping a residual branch in training at the last block of each stage; from 0 at the first block of
    the stage it grows linearly."""
    freeze_batch_norm: bool = True
    """Whether the batch norms of the attention projections are fixed buffers, as published, where a pretrained backbone
    sets them; from scratch they then do nothing. Otherwise they learn, and the same checkpoints load. The corner head's
    batch norms always learn."""
    score_branch: bool = False
    """Whether there is a branch that scores boxes, see `MixFormerCvT.score`. It is trained on its own, on a finished
    tracker; `forward` does not use it."""

    def __post_init__(self) -> None:
        require_positive(self, "search_size", "template_size", "head_width")
        for name in ("search_size", "template_size"):
            if getattr(self, name) < SMALLEST:
                raise ValueError(f"{name} must be at least {SMALLEST} pixels, got {getattr(self, name)}")
        for name in ("widths", "layers", "heads", "drop_path"):
            self._require_stages(name)
        for width, heads in zip(self.widths, self.heads, strict=True):
            require_divisible("widths", width, heads)
        if self.head_width % HEAD_MULTIPLE:
            raise ValueError(
                f"head_width must be a multiple of {HEAD_MULTIPLE}, got {self.head_width}: "
                f"try {max(1, self.head_width // HEAD_MULTIPLE) * HEAD_MULTIPLE}"
            )
        require_choice(self, "attention", ATTENTIONS)
        require_bool(self, "freeze_batch_norm", "score_branch")

    def _require_stages(self, name: str) -> None:
        """Make the named field a tuple; raise ValueError unless it has a legal number for each stage."""
        values = getattr(self, name)
        if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != STAGES:
            raise ValueError(f"{name} must be a list of {STAGES} numbers, one a stage, got {values!r}")
        if name == "drop_path":
            if not all(type(value) in (int, float) and 0 <= value < 1 for value in values):
                raise ValueError(f"drop_path must hold numbers >= 0 and below 1, got {list(values)}")
        elif not all(type(value) is int and value >= 1 for value in values):
            raise ValueError(f"{name} must hold integers >= 1, got {list(values)}")
        object.__setattr__(self, name, tuple(values))


CVT_W24: dict[str, Any] = {
    "widths": (192, 768, 1024),
    "layers": (2, 2, 12),
    "heads": (3, 12, 16),
    "drop_path": (0.0, 0.0, 0.3),
}
"""Options of the published large tracker, on CvT-w24."""

PRESETS: dict[str, MixFormerCvTConfig] = {
    "tiny": MixFormerCvTConfig(
        search_size=96,
        template_size=32,
        widths=(16, 48, 96),
        layers=(1, 1, 3),
        heads=(1, 3, 6),
        head_width=48,
        drop_path=(0.0, 0.0, 0.0),
        freeze_batch_norm=False,
    ),
    "small": MixFormerCvTConfig(
        search_size=192,
        template_size=64,
        widths=(32, 96, 192),
        layers=(1, 2, 6),
        heads=(1, 3, 6),
        head_width=192,
        drop_path=(0.0, 0.0, 0.0),
        freeze_batch_norm=False,
    ),
    "paper": MixFormerCvTConfig(),
}


class TemplateCache(NamedTuple):
    """What `MixFormerCvT.track` needs of the templates of B targets."""

    templates: int
    """1 + n."""
    blocks: tuple[KeysValues, ...]
    """Asymmetric: keys and values of every block, projected, [B, M, C of its stage] each. Symmetric: empty."""
    embedded: Tensor | None
    """Symmetric: tokens of the first embedding [B, N, C of the first stage]. Asymmetric: None."""
    features: Tensor | None
    """Asymmetric: the template's map of the last stage [B, C, h, w]. Symmetric: None, it changes with the search picture."""


class Stage(nn.Module):
    """An embedding and its blocks."""

    def __init__(self, config: MixFormerCvTConfig, stage: int) -> None:
        super().__init__()
        width, layers, rate = config.widths[stage], config.layers[stage], config.drop_path[stage]
        channels = config.widths[stage - 1] if stage else 3
        self.patch_embed = ConvEmbed(channels, width, EMBED_KERNELS[stage], EMBED_STRIDES[stage])
        self.blocks = nn.ModuleList(
            MixedBlock(
                width,
                config.heads[stage],
                asymmetric=config.attention == "asymmetric",
                freeze_batch_norm=config.freeze_batch_norm,
                drop_path=rate * layer / max(1, layers - 1),
            )
            for layer in range(layers)
        )

    def shrink(self, layout: Layout) -> list[Maps]:
        """Layout of the stage's tokens, given that of the pictures or maps that it embeds."""
        return [Maps(maps.number, self.patch_embed.size(maps.size)) for maps in layout]


class MixFormerCvT(nn.Module):
    """Tracker with mixed attention and corner head; parameters bear the names of the published checkpoints."""

    config_class = MixFormerCvTConfig

    def __init__(self, config: MixFormerCvTConfig) -> None:
        super().__init__()
        self.config = config
        self.asymmetric = config.attention == "asymmetric"
        self.backbone = nn.ModuleDict({f"stage{stage}": Stage(config, stage) for stage in range(STAGES)})
        cells = config.search_size
        for stage in self.stages:
            cells = stage.patch_embed.size(cells)
        self.box_head = CornerHead(
            config.widths[-1], config.head_width, stride=STRIDE, size=config.search_size, cells=cells
        )
        self.score_branch = ScoreBranch(config.widths[-1], config.heads[-1]) if config.score_branch else None
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=WEIGHT_STD)
                nn.init.zeros_(part.bias)

    @property
    def stages(self) -> list[Stage]:
        """The stages in order."""
        return list(self.backbone.values())  # type: ignore[arg-type]

    def forward(self, template: Tensor, online_template: Tensor, search: Tensor) -> dict[str, Tensor]:
        """Find the target.

        Args:
            template: the target as given, [B, 3, t, t].
            online_template: the target as seen later, [B, 3, t, t], or several times, [B, n, 3, t, t].
            search: [B, 3, s, s].

        Returns:
            ``boxes_cxcywh``: fp32 [B, 4], centre, width and height as fractions of the search picture, the last two perhaps
            negative; ``template_features`` and ``search_features``: [B, C, h, w] of the last stage.

        Raises:
            ValueError: pictures of another size or number.
        """
        templates = self._stack(template, online_template)
        return self._find(templates.shape[1], self._embed(templates), search)

    def set_templates(self, template: Tensor, online_template: Tensor) -> TemplateCache:
        """Do the work of the templates that no search picture changes, for any number of calls of `track`.

        The asymmetric design runs the whole backbone on the templates and keeps the keys and values of every block. Of the
        symmetric one only the first embedding can be kept: `track` then costs about as much as `forward`.

        Args:
            template: as in `forward`.
            online_template: as in `forward`.

        Raises:
            ValueError: pictures of another size or number.
        """
        templates = self._stack(template, online_template)
        count, embedded = templates.shape[1], self._embed(templates)
        if not self.asymmetric:
            return TemplateCache(count, (), embedded, None)
        (maps,), blocks = self._mix(embedded, [Maps(count, self.config.template_size)])
        return TemplateCache(count, tuple(blocks), None, _first(maps, count))

    def track(self, search: Tensor, cache: TemplateCache) -> Tensor:
        """Find the target in one more search picture: in evaluation mode as `forward` does with the templates of the cache.

        Args:
            search: [B, 3, s, s].
            cache: of the same B targets.

        Returns:
            ``boxes_cxcywh`` as of `forward`, fp32 [B, 4].

        Raises:
            ValueError: search pictures of another size or number.
        """
        return self.read(search, cache)["boxes_cxcywh"]

    def read(self, search: Tensor, cache: TemplateCache) -> dict[str, Tensor]:
        """As `track`, with all that `forward` returns."""
        if cache.embedded is not None:
            return self._find(cache.templates, cache.embedded, search)
        assert cache.features is not None
        self._check("search", search, cache.features.shape[0])
        (features,), _ = self._mix(self._embed(search[:, None]), [Maps(1, self.config.search_size)], cache.blocks)
        return self._outputs(cache.features, features)

    def score(self, template_features: Tensor, search_features: Tensor, boxes: Tensor) -> Tensor:
        """Judge how surely the target is in a box of the search picture.

        Args:
            template_features: as of `forward` or `read`, [B, C, h, w].
            search_features: likewise.
            boxes: centre, width and height as fractions of the search picture, [B, 4].

        Returns:
            Logits [B]; their sigmoid is the published score, above 0.5 for a box that may serve as an online template.

        Raises:
            ValueError: the model has no score branch.
        """
        if self.score_branch is None:
            raise ValueError("score_branch must be true for boxes to be scored, got False")
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        corners = torch.cat([centre - half, centre + half], dim=1)
        return self.score_branch(template_features, search_features, corners * self.config.search_size / STRIDE)

    def unused_parameters(self) -> frozenset[str]:
        """Weights that `forward` leaves without gradient: those of the score branch."""
        return frozenset(name for name, _ in self.named_parameters() if name.startswith(SCORE_SUBTREE))

    def _find(self, count: int, templates: Tensor, search: Tensor) -> dict[str, Tensor]:
        """`forward` with the templates embedded, [B, N, C of the first stage]."""
        self._check("search", search, templates.shape[0])
        x = torch.cat([templates, self._embed(search[:, None])], dim=1)
        pictures = [Maps(count, self.config.template_size), Maps(1, self.config.search_size)]
        (of_templates, of_search), _ = self._mix(x, pictures)
        return self._outputs(_first(of_templates, count), of_search)

    def _embed(self, pictures: Tensor) -> Tensor:
        """First embedding: [B, count, 3, e, e] -> [B, N, C of the first stage]."""
        return self.stages[0].patch_embed([pictures.flatten(0, 1)], pictures.shape[0])

    def _mix(self, x: Tensor, layout: Layout, kept: Sequence[KeysValues] = ()) -> tuple[list[Tensor], list[KeysValues]]:
        """Run the backbone behind its first embedding.

        Args:
            x: embedded tokens, [B, N, C of the first stage].
            layout: of the pictures.
            kept: keys and values of templates that are not among the tokens, one entry a block.

        Returns:
            The maps of the last stage, one entry of the layout each, and the keys and values of every block.
        """
        blocks: list[KeysValues] = []
        for stage, module in enumerate(self.stages):
            if stage:
                x = module.patch_embed(to_maps(x, layout), x.shape[0])
            layout = module.shrink(layout)
            for block in module.blocks:
                x, own = block(x, layout, kept[len(blocks)] if kept else None)
                blocks.append(own)
        return to_maps(x, layout), blocks

    def _outputs(self, template_features: Tensor, search_features: Tensor) -> dict[str, Tensor]:
        return {
            "boxes_cxcywh": self.box_head(search_features),
            "template_features": template_features,
            "search_features": search_features,
        }

    def _stack(self, template: Tensor, online_template: Tensor) -> Tensor:
        """Check the templates and put them together: [B, 1 + n, 3, t, t]."""
        self._check("template", template)
        online = online_template[:, None] if online_template.ndim == 4 else online_template
        edge, batch = self.config.template_size, template.shape[0]
        if online.ndim != 5 or online.shape[0] != batch or online.shape[2:] != (3, edge, edge):
            raise ValueError(
                f"online_template must be [{batch}, 3, {edge}, {edge}] or [{batch}, n, 3, {edge}, {edge}], "
                f"got {list(online_template.shape)}"
            )
        return torch.cat([template[:, None], online], dim=1)

    def _check(self, name: str, pictures: Tensor, batch: int | None = None) -> None:
        """Raise ValueError unless the named pictures are [B, 3, e, e] of the configured edge, with B = ``batch`` if given."""
        edge = self.config.search_size if name == "search" else self.config.template_size
        wrong = batch is not None and pictures.shape[0] != batch
        if wrong or pictures.ndim != 4 or pictures.shape[1:] != (3, edge, edge):
            raise ValueError(
                f"{name} must be [{'B' if batch is None else batch}, 3, {edge}, {edge}], got {list(pictures.shape)}"
            )

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """FLOPs of one forward pass: 2 per multiply-add, matrix products, convolutions and attention, ends included.

        Args:
            batch: ``online_template`` and ``search`` as in `forward`; only their shapes are read.
        """
        online = batch["online_template"]
        return batch["search"].shape[0] * self._sample_flops(online.shape[1] if online.ndim == 5 else 1)

    def flops_templates(self, online: int = 1) -> int:
        """FLOPs of `set_templates` for one target with ``online`` online templates, counted like `flops`."""
        templates = [Maps(1 + online, self.config.template_size)]
        return self._backbone_flops(templates) if self.asymmetric else self._embed_flops(0, templates)

    def flops_track(self, online: int = 1) -> int:
        """FLOPs of `track` on one search picture with ``online`` online templates in the cache, counted like `flops`."""
        return self._sample_flops(online) - self.flops_templates(online)

    def _sample_flops(self, online: int) -> int:
        config = self.config
        pictures = [Maps(1 + online, config.template_size), Maps(1, config.search_size)]
        head = corner_head_flops(config.widths[-1], config.head_width, len(self.box_head.coordinates))
        return self._backbone_flops(pictures) + head

    def _backbone_flops(self, layout: Layout) -> int:
        """FLOPs of all stages on one sample's pictures."""
        flops = 0
        for stage, (width, layers) in enumerate(zip(self.config.widths, self.config.layers, strict=True)):
            flops += self._embed_flops(stage, layout)
            layout = self.stages[stage].shrink(layout)
            flops += layers * mixed_block_flops(width, layout, asymmetric=self.asymmetric)
        return flops

    def _embed_flops(self, stage: int, pictures: Layout) -> int:
        module = self.stages[stage]
        return embed_flops(module.patch_embed, module.shrink(pictures))

    @classmethod
    def from_reference(cls, state: Mapping[str, Any], **config: Any) -> Self:
        """Build the model from a checkpoint in the published layout.

        Args:
            state: its state dict, or the file's dict that holds it under ``net`` or ``model``; wrapper prefixes are
                stripped. Dropped are exactly `DEAD_WEIGHTS`, and without ``score_branch`` the subtree of that name.
            **config: the options of the configuration.

        Raises:
            ValueError: an unknown option, or a key that is missing, superfluous or of another shape.
        """
        model = cls(build_config(cls.config_class, config))
        state = state["net"] if isinstance(state.get("net"), Mapping) else state
        weights = unwrap_keys(state, () if model.score_branch else (SCORE_SUBTREE,))
        load_strictly(model, {key: value for key, value in weights.items() if key not in DEAD_WEIGHTS})
        return model


def _first(maps: Tensor, count: int) -> Tensor:
    """Of every sample the first of its ``count`` maps: [B * count, C, h, w] -> [B, C, h, w]."""
    return maps.unflatten(0, (-1, count))[:, 0]
