"""What Efficient-LVSM keeps of the input views it has seen: a value, passed in and out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class ViewCache:
    """Keys and values that the target blocks read, of every input view of a batch of scenes.

    A cache is never changed: `append` and `remove` return a new one. It belongs to the weights that made it.

    Axes: B scenes, V input views, T tokens a view, h heads, d head_dim.
    """

    keys: tuple[Tensor, ...]
    """One entry a target block, [B, V T, h, d]: normalised, not scaled by the number of views."""
    values: tuple[Tensor, ...]
    """Likewise."""
    view_mask: Tensor | None
    """[B, V] bool, True where a view is there; None where all are."""
    num_views: int
    """V, masked ones included."""
    image_size: tuple[int, int]
    """(H, W) of the input images in pixels."""
    incremental: bool = True
    """Whether a view's entries are the same with and without the other views, so that views can come and go."""

    def require(self, layers: int, heads: int, head_dim: int, tokens: int) -> None:
        """Raise ValueError unless a model of this size, with so many tokens a view, could have made the cache."""
        ours = (len(self.keys), *self.keys[0].shape[2:], self._tokens)
        if ours != (layers, heads, head_dim, tokens):
            raise ValueError(
                f"the cache has (layers, heads, head_dim, tokens a view) = {ours}, the model "
                f"{(layers, heads, head_dim, tokens)}: render with the model that encoded it"
            )

    @property
    def num_bytes(self) -> int:
        """Memory of keys and values."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.keys, *self.values))

    def append(self, other: ViewCache) -> ViewCache:
        """The views of both, this one's first: the same as if all had been encoded at once.

        Raises:
            ValueError: the two come from other models, other numbers of scenes or other image sizes, or views that were
                encoded together depend on one another.
        """
        self._require_incremental("append")
        for name, ours, theirs in (
            ("layers", len(self.keys), len(other.keys)),
            ("image sizes", self.image_size, other.image_size),
            ("incremental", self.incremental, other.incremental),
            ("scenes", self.keys[0].shape[0], other.keys[0].shape[0]),
            ("heads", tuple(self.keys[0].shape[2:]), tuple(other.keys[0].shape[2:])),
            ("tokens a view", self._tokens, other._tokens),
            ("types", self.keys[0].dtype, other.keys[0].dtype),
            ("devices", self.keys[0].device, other.keys[0].device),
        ):
            if ours != theirs:
                raise ValueError(
                    f"the caches have different {name}, {ours} and {theirs}: append views of the same scenes, encoded by "
                    "the same model in the same way"
                )
        mask = None
        if self.view_mask is not None or other.view_mask is not None:
            mask = torch.cat([self._mask(), other._mask()], dim=1)
        return replace(
            self,
            keys=tuple(torch.cat(pair, dim=1) for pair in zip(self.keys, other.keys, strict=True)),
            values=tuple(torch.cat(pair, dim=1) for pair in zip(self.values, other.values, strict=True)),
            view_mask=mask,
            num_views=self.num_views + other.num_views,
        )

    def remove(self, view: int) -> ViewCache:
        """The cache without one view, counted from 0: the same as if it had never been there.

        Raises:
            ValueError: there is no such view, it is the last one of a scene (which is read back from the device where
                views are masked), or views that were encoded together depend on one another.
        """
        self._require_incremental("remove")
        if isinstance(view, bool) or not isinstance(view, int) or not 0 <= view < self.num_views:
            raise ValueError(f"view must be in 0..{self.num_views - 1}, got {view!r}: the cache holds no such view")
        if self.num_views == 1:
            raise ValueError(f"view {view} is the only one: encode another view first, nothing renders without one")

        def without(tensor: Tensor, tokens: int) -> Tensor:
            return torch.cat([tensor[:, : view * tokens], tensor[:, (view + 1) * tokens :]], dim=1)

        mask = None if self.view_mask is None else without(self.view_mask, 1)
        if mask is not None and not mask.any(1).all():
            scene = mask.any(1).tolist().index(False)
            raise ValueError(
                f"without view {view} scene {scene} has none left: append another view first, nothing renders without one"
            )
        return replace(
            self,
            keys=tuple(without(keys, self._tokens) for keys in self.keys),
            values=tuple(without(values, self._tokens) for values in self.values),
            view_mask=mask,
            num_views=self.num_views - 1,
        )

    @property
    def _tokens(self) -> int:
        return self.keys[0].shape[1] // self.num_views

    def _mask(self) -> Tensor:
        """The view mask, written out."""
        if self.view_mask is not None:
            return self.view_mask
        return torch.ones(self.keys[0].shape[0], self.num_views, dtype=torch.bool, device=self.keys[0].device)

    def _require_incremental(self, action: str) -> None:
        if not self.incremental:
            raise ValueError(
                f"cannot {action}: with input_scope 'global' the views were encoded together and depend on one another; "
                "encode the new set of views"
            )
