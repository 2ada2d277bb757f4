"""CLIP models built by open_clip and filled from local files or from what it can fetch; never random in silence."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.layers.clip_towers import PARTS, CLIPTowers
from models.layers.trained_networks import digest
from models.reference import load_strictly

RANDOM = "random"
"""Weights that no one trained, for tests and for what is loaded afterwards."""
PLAIN = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
PLAIN_IMAGE = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio", "ls_init_value"}
PLAIN_TEXT = {"context_length", "vocab_size", "width", "heads", "layers"}
"""What open_clip's configuration of a model may say; all else, such as other pooling or tokens, `CLIPTowers` has not."""
CONSTANTS = ("input_resolution", "context_length", "vocab_size")
"""What OpenAI's files hold beside the weights."""
CONFIGURATION = "open_clip_config.json"
"""What open_clip publishes beside weights: model and preprocessing."""


def build_clip(name: str, weights: str | None, *, own_residual: bool) -> tuple[CLIPTowers, dict[str, str]]:
    """Build the towers and fill them; on the meta device nothing is read or fetched.

    The activation that weights were trained with must be the model's, and the statistics of their pixels are taken over.
    Both are known of a tag and of a file beside which ``open_clip_config.json`` lies, the activation of OpenAI's
    TorchScript archives, too. Of any other file CLIP's statistics and the model's activation are taken to be right.

    Args:
        name: of the model, as open_clip knows it; weights of OpenAI need one with ``-quickgelu``.
        weights: a local file, a tag of open_clip (``openai``), which it may fetch, or ``random``.
        own_residual: as in `CLIPTowers`.

    Returns:
        The towers, and ``source`` and ``sha256`` of the weights.

    Raises:
        ValueError: a model or tag that open_clip does not know or that is built another way; weights that cannot be had, do
            not fit the model or were trained with another activation.
    """
    import open_clip

    _require_plain(name)
    on_meta = torch.empty(0).device.type == "meta"
    path, identity = None, {"source": RANDOM, "sha256": ""}
    preprocessing: dict[str, Any] = {}
    with _quiet(), torch.inference_mode(False):
        if not on_meta and weights != RANDOM:
            path, source, preprocessing = _find(name, weights)
            identity = {"source": source, "sha256": digest(path)}
        clip = open_clip.create_model(name, device="meta" if on_meta else "cpu", force_preprocess_cfg=preprocessing)
        if path is not None:
            _fill(clip, path, name, weights)
    return CLIPTowers(clip, own_residual), identity


def _require_plain(name: str) -> None:
    """Raise ValueError unless open_clip builds the model as two plain transformers."""
    import open_clip

    if name not in open_clip.list_models():
        raise ValueError(f"clip_model must be a model of open_clip, got {name!r}: try ViT-B-16-quickgelu")
    model = open_clip.get_model_config(name)
    image, text = model["vision_cfg"], model["text_cfg"]
    others = [
        key
        for said, known in ((model, PLAIN), (image, PLAIN_IMAGE), (text, PLAIN_TEXT))
        for key in said
        if key not in known
    ]
    if isinstance(image.get("layers"), list):
        others.append("layers of a ResNet")
    if others:
        raise ValueError(
            f"clip_model must have two plain transformers, got {name!r} with {', '.join(others)}: try ViT-B-16-quickgelu"
        )


def _require_activation(name: str, weights: str | None, quick: bool) -> None:
    """Raise ValueError unless the model has the activation that the weights were trained with."""
    import open_clip

    if quick != bool(open_clip.get_model_config(name).get("quick_gelu")):
        other = f"{name}-quickgelu" if quick else name.removesuffix("-quickgelu")
        if other not in open_clip.list_models():
            other = "the model that they were trained as"
        raise ValueError(
            f"clip_weights {weights} were trained with quick_gelu {quick}, and clip_model {name} has {not quick}: set "
            f"clip_model to {other}"
        )


def _find(name: str, weights: str | None) -> tuple[Path, str, dict[str, Any]]:
    """The file, how a record names it, and what is known of the preprocessing."""
    import open_clip

    if weights is None:
        raise ValueError(
            f"clip_weights must be a file, a tag of open_clip or {RANDOM!r}, got null: random weights are never silent"
        )
    path = Path(weights).expanduser()
    if path.is_file():
        beside = path.with_name(CONFIGURATION)
        if not beside.is_file():
            return path, path.name, {}
        try:
            published = json.loads(beside.read_text())
            model, preprocessing = published["model_cfg"], published["preprocess_cfg"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"clip_weights {weights}: {beside} cannot be read ({type(error).__name__}): mend it, or take it away"
            ) from error
        _require_activation(name, weights, model.get("quick_gelu", False))
        return path, f"{path.name} with {CONFIGURATION} {digest(beside)[:8]}", preprocessing
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights not in tags:
        raise ValueError(
            f"clip_weights must be a file or, with clip_model {name}, one of {', '.join(tags) or 'no tags'}, got {weights!r}"
        )
    tag = open_clip.get_pretrained_cfg(name, weights)
    _require_activation(name, weights, tag.get("quick_gelu", False))
    try:
        return Path(open_clip.download_pretrained(tag)), f"open_clip: {name} {weights}", tag
    except Exception as error:  # no connection, no access, no room: whatever it is, the mend is the same
        where = tag.get("hf_hub") or tag.get("url")
        raise ValueError(
            f"clip_weights {weights} of {name} could not be fetched ({type(error).__name__}): download them and "
            f"{CONFIGURATION} from {where} and set clip_weights to the file"
        ) from error


def _fill(clip: nn.Module, path: Path, name: str, weights: str | None) -> None:
    """Load a file strictly."""
    try:
        state, archive = _read(path)
    except Exception as error:  # a damaged or foreign file fails in as many ways as there are formats
        raise ValueError(
            f"clip_weights {weights} cannot be read ({type(error).__name__}): give a .safetensors, .pt or .bin file of {name}"
        ) from error
    if archive:
        _require_activation(name, weights, quick=True)
    try:
        if "logit_scale" in state:  # of one element, with an axis in some files; nothing reads it
            state = {**state, "logit_scale": state["logit_scale"].reshape(())}
        load_strictly(clip, state, dropped=CONSTANTS)
    except ValueError as error:
        raise ValueError(f"clip_weights {weights} do not fit {name}: {error}") from error


def _read(path: Path) -> tuple[Mapping[str, Any], bool]:
    """The weights, and whether they come as a TorchScript archive, as OpenAI publishes them."""
    from open_clip.factory import load_state_dict

    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of the format, which is an old one
            return torch.jit.load(path, map_location="cpu").state_dict(), True
    except RuntimeError:
        return load_state_dict(str(path)), False


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
