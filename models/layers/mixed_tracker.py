"""What the MixFormers share: a tracker whose backbone extracts and compares template and search picture in one attention.

Cui et al., "MixFormer: End-to-End Tracking with Iterative Mixed Attention" (CVPR 2022), and its published code. Three
pictures, the target as it was given (template), the target as it was last seen well (online template) and the search
picture, go through a backbone with mixed attention. A corner head reads the box from the search map. In the asymmetric
design templates do not read the search picture, so their keys and values can be kept over frames.

Axes: B samples, n online templates, N tokens, M keys, t edge of a template and s of the search picture in pixels, C channels
of the features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from models.layers.config import build_config, require_bool, require_choice, require_positive
from models.layers.conv_attention import KeysValues, Layout, Maps
from models.layers.corner_head import HEAD_MULTIPLE, CornerHead
from models.layers.score_branch import ScoreBranch
from models.reference import load_strictly, unwrap_keys

ATTENTIONS = ("asymmetric", "symmetric")
SCORE_SUBTREE = "score_branch."


@dataclass(frozen=True)
class MixedTrackerConfig:
    """What every tracker has; its own configuration adds the backbone."""

    search_size: int = 320
    """Edge of the square search pictures in pixels."""
    template_size: int = 128
    """Edge of the square templates in pixels."""
    head_width: int = 384
    """Channels of the corner head's first convolution; a multiple of 8."""
    attention: str = "asymmetric"
    """``asymmetric``: templates read templates, the search picture reads everything. ``symmetric``: everything reads
    everything, so nothing of the templates but their first embedding can be kept over frames."""
    score_branch: bool = False
    """Whether there is a branch that scores boxes, see `MixedTracker.score`. It is trained on its own, on a finished
    tracker; `forward` does not use it."""

    def __post_init__(self) -> None:
        require_positive(self, "search_size", "template_size", "head_width")
        if self.head_width % HEAD_MULTIPLE:
            raise ValueError(
                f"head_width must be a multiple of {HEAD_MULTIPLE}, got {self.head_width}: "
                f"try {max(1, self.head_width // HEAD_MULTIPLE) * HEAD_MULTIPLE}"
            )
        require_choice(self, "attention", ATTENTIONS)
        require_bool(self, "score_branch")


class TemplateCache(NamedTuple):
    """What `MixedTracker.track` needs of the templates of B targets."""

    templates: int
    """1 + n."""
    blocks: tuple[KeysValues, ...]
    """Asymmetric: keys and values of every block, projected. Symmetric: empty."""
    embedded: Tensor | None
    """Symmetric: tokens of the first embedding, [B, N, their channels]. Asymmetric: None."""
    features: Tensor | None
    """Asymmetric: the template's features [B, C, h, w]. Symmetric: None, they change with the search picture."""


class MixedTracker(nn.Module):
    """A tracker but for its backbone: what goes in and comes out, what is kept over frames, how published weights are read.

    A design gives the backbone's two halves (`embed`, `mix`) with their costs, `box_head`, `score_branch` and `stride`.
    """

    config_class: ClassVar[type[MixedTrackerConfig]]
    config: Any
    dead_weights: ClassVar[frozenset[str]]
    """Weights of published checkpoints that nothing reads."""
    stride: int
    """Pixels between two cells of the features."""
    box_head: CornerHead
    score_branch: ScoreBranch | None

    def __init__(self, config: MixedTrackerConfig) -> None:
        super().__init__()
        self.config = config
        self.asymmetric = config.attention == "asymmetric"

    def embed(self, name: str, pictures: Tensor) -> Tensor:
        """First embedding of ``template`` or ``search`` pictures: [B, count, 3, e, e] -> [B, N, C of the tokens]."""
        raise NotImplementedError

    def mix(self, x: Tensor, layout: Layout, kept: Sequence[KeysValues] = ()) -> tuple[list[Tensor], list[KeysValues]]:
        """Run the backbone behind its first embedding.

        Args:
            x: embedded tokens, [B, N, C of the tokens].
            layout: of the pictures, edges in pixels.
            kept: keys and values of templates that are not among the tokens, one entry a block.

        Returns:
            The features, one entry of the layout each, and the keys and values of every block.
        """
        raise NotImplementedError

    def embed_flops(self, pictures: Layout) -> int:
        """FLOPs of `embed` on one sample."""
        raise NotImplementedError

    def backbone_flops(self, pictures: Layout) -> int:
        """FLOPs of `embed` and `mix` on one sample."""
        raise NotImplementedError

    def head_flops(self) -> int:
        """FLOPs of the corner head on one sample."""
        raise NotImplementedError

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
        return self._find(templates.shape[1], self.embed("template", templates), search)

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
        count, embedded = templates.shape[1], self.embed("template", templates)
        if not self.asymmetric:
            return TemplateCache(count, (), embedded, None)
        (maps,), blocks = self.mix(embedded, [Maps(count, self.config.template_size)])
        # Contiguous, so that views do not keep the queries beside them in memory.
        kept = tuple(KeysValues(keys.contiguous(), values.contiguous()) for keys, values in blocks)
        return TemplateCache(count, kept, None, _first(maps, count))

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
        layout = [Maps(1, self.config.search_size)]
        (features,), _ = self.mix(self.embed("search", search[:, None]), layout, cache.blocks)
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
        return self.score_branch(template_features, search_features, corners * self.config.search_size / self.stride)

    def unused_parameters(self) -> frozenset[str]:
        """Weights that `forward` leaves without gradient: those of the score branch."""
        return frozenset(name for name, _ in self.named_parameters() if name.startswith(SCORE_SUBTREE))

    def _find(self, count: int, templates: Tensor, search: Tensor) -> dict[str, Tensor]:
        """`forward` with the templates embedded, [B, N, C of the tokens]."""
        self._check("search", search, templates.shape[0])
        x = torch.cat([templates, self.embed("search", search[:, None])], dim=1)
        (of_templates, of_search), _ = self.mix(x, self._pictures(count))
        return self._outputs(_first(of_templates, count), of_search)

    def _outputs(self, template_features: Tensor, search_features: Tensor) -> dict[str, Tensor]:
        return {
            "boxes_cxcywh": self.box_head(search_features),
            "template_features": template_features,
            "search_features": search_features,
        }

    def _pictures(self, templates: int) -> list[Maps]:
        """Layout of the pictures of a sample with so many templates."""
        return [Maps(templates, self.config.template_size), Maps(1, self.config.search_size)]

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
        templates = self._pictures(1 + online)[:1]
        return self.backbone_flops(templates) if self.asymmetric else self.embed_flops(templates)

    def flops_track(self, online: int = 1) -> int:
        """FLOPs of `track` on one search picture with ``online`` online templates in the cache, counted like `flops`."""
        return self._sample_flops(online) - self.flops_templates(online)

    def _sample_flops(self, online: int) -> int:
        return self.backbone_flops(self._pictures(1 + online)) + self.head_flops()

    @classmethod
    def from_reference(cls, state: Mapping[str, Any], **config: Any) -> Self:
        """Build the model from a checkpoint in the published layout.

        Args:
            state: its state dict, or the file's dict that holds it under ``net`` or ``model``; wrapper prefixes are
                stripped. Dropped are exactly `dead_weights`, and without ``score_branch`` the subtree of that name.
            **config: the options of the configuration.

        Raises:
            ValueError: an unknown option, or a key that is missing, superfluous or of another shape.
        """
        model = cls(build_config(cls.config_class, config))
        state = state["net"] if isinstance(state.get("net"), Mapping) else state
        weights = unwrap_keys(state, () if model.score_branch else (SCORE_SUBTREE,))
        load_strictly(model, {key: value for key, value in weights.items() if key not in cls.dead_weights})
        return model


def _first(maps: Tensor, count: int) -> Tensor:
    """Of every sample the first of its ``count`` maps: [B * count, C, h, w] -> [B, C, h, w]."""
    return maps.unflatten(0, (-1, count))[:, 0]
