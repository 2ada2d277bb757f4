"""CLIP models built and filled by open_clip, from local files or from what it can fetch; never random in silence."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from models.layers.clip_towers import PARTS, CLIPTowers
from models.layers.trained_networks import digest

RANDOM = "random"
"""Weights that no one trained, for tests and for what is loaded afterwards."""


def build_clip(name: str, weights: str | None, *, own_residual: bool) -> tuple[CLIPTowers, dict[str, str]]:
    """Build the towers and fill them; on the meta device nothing is read or fetched.

    Args:
        name: of the model, as open_clip knows it; weights of OpenAI need one with ``-quickgelu``.
        weights: a local file, a tag of open_clip (``openai``), which it may fetch, or ``random``.
        own_residual: as in `CLIPTowers`.

    Returns:
        The towers, and ``source`` and ``sha256`` of the weights.

    Raises:
        ValueError: a model or tag that open_clip does not know or that is built another way; weights that cannot be had.
    """
    import open_clip

    if name not in open_clip.list_models():
        near = [known for known in open_clip.list_models() if known.startswith(name[:5])]
        raise ValueError(f"clip_model must be a model of open_clip, got {name!r}: try one of {', '.join(near[:8])}")
    on_meta = torch.empty(0).device.type == "meta"
    path, identity = None, {"source": RANDOM, "sha256": ""}
    if not on_meta and weights != RANDOM:
        path, source = _find(name, weights)
        identity = {"source": source, "sha256": digest(path)}
    with _quiet(), torch.inference_mode(False):
        try:
            clip = open_clip.create_model(
                name, pretrained=str(path) if path else None, device="meta" if on_meta else "cpu"
            )
        except Exception as error:  # a damaged or foreign file fails in as many ways as there are formats
            raise ValueError(
                f"clip_weights {weights} do not fit {name} ({type(error).__name__}): give a checkpoint of this model"
            ) from error
    visual = clip.visual
    if not all(hasattr(clip, part) for part in ("transformer", "text_projection")) or not all(
        hasattr(visual, part) for part in ("class_embedding", "ln_pre", "transformer", "proj")
    ):
        raise ValueError(f"clip_model must have two plain transformers, got {name!r}: try ViT-B-16-quickgelu")
    return CLIPTowers(clip, own_residual), identity


def _find(name: str, weights: str | None) -> tuple[Path, str]:
    """The file, and how a record names it."""
    import open_clip

    if weights is None:
        raise ValueError(
            f"clip_weights must be a file, a tag of open_clip or {RANDOM!r}, got null: random weights are never silent"
        )
    path = Path(weights).expanduser()
    if path.is_file():
        return path, path.name
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights not in tags:
        raise ValueError(f"clip_weights must be a file or one of {', '.join(tags) or 'no tags'}, got {weights!r}")
    cfg = open_clip.get_pretrained_cfg(name, weights)
    where = cfg.get("hf_hub") or cfg.get("url")
    try:
        return Path(open_clip.download_pretrained(cfg)), f"open_clip: {name} {weights}"
    except Exception as error:  # no connection, no access, no room: whatever it is, the mend is the same
        raise ValueError(
            f"clip_weights {weights} of {name} could not be fetched ({type(error).__name__}): download them from {where} "
            "and set clip_weights to the file"
        ) from error


def split_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the fused attention weights of OpenAI's layout to those of this module; others stay as they are."""
    split: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith(".attn.in_proj_weight"):
            stem = key.removesuffix("in_proj_weight")
            split |= {f"{stem}{part}_proj_weight": rows for part, rows in zip(PARTS, value.chunk(3), strict=True)}
        else:
            split[key] = value
    return split


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip from warning of random weights and the hub of each attempt; what comes of it is said in one line."""
    loggers = [logging.getLogger(), logging.getLogger("huggingface_hub")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
