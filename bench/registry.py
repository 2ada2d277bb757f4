"""Names -> architectures and tasks, loaded only when used. Third parties register through entry points."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache, lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bench.errors import UserError

ENTRY_POINT_GROUP = "isochron.architectures"


@dataclass(frozen=True)
class Entry:
    """One registered name: where its class is, which task it serves, and what it is in a few words."""

    target: str
    """``package.module:Name``"""
    task: str
    """For `isochron list`; empty for architectures from outside, which do not say."""
    summary: str


ARCHITECTURES: dict[str, Entry] = {
    "lvsm-decoder-only": Entry(
        "baselines.lvsm:LVSMDecoderOnly", "nvs", "LVSM, full self-attention over inputs and target"
    ),
    "lvsm-encoder-decoder": Entry(
        "baselines.lvsm_encoder_decoder:LVSMEncoderDecoder", "nvs", "LVSM, the inputs pressed into latents"
    ),
    "efficient-lvsm": Entry(
        "models.efficient_lvsm:EfficientLVSM", "nvs", "Efficient-LVSM, two streams with one-way cross-attention"
    ),
    "mae": Entry("baselines.mae:MAE", "masked-image", "MAE, a self-attention decoder over all patches"),
    "crossmae": Entry(
        "models.crossmae:CrossMAE", "masked-image", "CrossMAE, masked patches read the visible ones by cross-attention"
    ),
    "hydrology-mae": Entry(
        "models.hydrology_mae:HydrologyMAE",
        "hydrology",
        "daily fields and gauge series; cross- or self-attention decoders",
    ),
    "vos-memory": Entry(
        "models.vos_memory:VOSMemory", "vos", "ConvMAE with memory frames: dense, top-K or shared-subset read-out"
    ),
    "mixformer-cvt": Entry(
        "models.mixformer:MixFormerCvT", "tracking", "MixFormer on CvT, asymmetric or symmetric mixed attention"
    ),
    "mixformer-vit": Entry(
        "models.mixformer_vit:MixFormerViT", "tracking", "MixFormer on a plain ViT, with a pyramid corner head"
    ),
    "catseg": Entry(
        "models.catseg:CATSeg", "openvocab", "CAT-Seg of 2023 and 2024, on CLIP or on small towers learned from scratch"
    ),
    "catseg-aggregator": Entry(
        "models.catseg_aggregator:CATSegAggregator", "openvocab", "its head, on given features of image and text"
    ),
}

PARTS: dict[str, Entry] = {
    "convmae-memory-backbone": Entry(
        "models.convmae:ConvMAEMemoryBackbone", "", "the backbone of vos-memory, as published weights have it"
    ),
    "catseg-sliding-window": Entry(
        "models.layers.sliding_window:SlidingWindowSegmenter",
        "",
        "how catseg cuts pictures and merges what it made of the windows",
    ),
}
"""Parts of architectures whose published layout can be loaded and compared (`isochron parity`), but which serve no task alone."""

TASKS: dict[str, Entry] = {
    "nvs": Entry(
        "bench.tasks.nvs:NovelViewSynthesis",
        "nvs",
        "novel view synthesis on rendered scenes, RealEstate10K, object renders, transforms.json",
    ),
    "masked-image": Entry(
        "bench.tasks.masked_image:MaskedImage",
        "masked-image",
        "masked image modelling on rendered scenes or a folder of images",
    ),
    "hydrology": Entry(
        "bench.tasks.hydrology:Hydrology",
        "hydrology",
        "masked fields and gauge series: generated, CAMELS-US, CAMELS-GB, Caravan, NetCDF grids",
    ),
    "vos": Entry(
        "bench.tasks.vos:VideoObjectSegmentation",
        "vos",
        "video object segmentation from first masks: rendered clips, DAVIS, YouTube-VOS, warped images",
    ),
    "tracking": Entry(
        "bench.tasks.tracking:Tracking",
        "tracking",
        "single-object tracking from a first box: rendered clips, GOT-10k, LaSOT",
    ),
    "openvocab": Entry(
        "bench.tasks.openvocab:OpenVocabulary",
        "openvocab",
        "segmentation by names: rendered scenes, aligned features, ADE20K, PASCAL, COCO-Stuff, a folder",
    ),
}


def architectures() -> dict[str, Entry]:
    """All registered architectures, the project's own and those of installed packages.

    An entry point ``name = "pkg.file:Class"`` in the group `isochron.architectures` registers one; it names the class or
    a factory. Which task it serves is up to the comparison that names it.
    """
    found = dict(ARCHITECTURES)
    for point in _installed(entry_points, tuple(sys.path)):
        if point.name in found:
            raise UserError(f"architecture {point.name!r} is registered twice; rename the entry point of {point.value}")
        found[point.name] = Entry(point.value, "", f"from {point.dist.name if point.dist else point.value}")
    return found


@lru_cache(maxsize=1)
def _installed(find: Callable[..., Iterable[EntryPoint]], path: tuple[str, ...]) -> Iterable[EntryPoint]:
    """Entry points of the packages on `path`, which is `sys.path`: read once, as every package has a file to open."""
    return find(group=ENTRY_POINT_GROUP)


def load_object(target: str, what: str) -> Any:
    """Import ``package.module:Name``; the folder that the command was started in is searched first.

    Raises:
        UserError: there is no such module or name, or importing it failed.
    """
    module_name, separator, name = target.partition(":")
    if not separator or not name or not module_name or module_name.startswith("."):
        raise UserError(f"{what} {target!r}: write it as package.module:Name")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{what} {target!r}: no module named {error.name!r}; install it, or start from its folder"
        ) from error
    except Exception as error:  # whatever the module does when it is imported; --debug shows where
        problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{what} {target!r}: cannot be imported ({problem}); mend the module") from error
    if not hasattr(module, name):
        raise UserError(f"{what} {target!r}: the module has no {name!r}; mend the name")
    return getattr(module, name)


def architecture(name: str, *, parts: bool = False) -> Entry:
    """The entry of a registered architecture or, if asked for, of a part (`PARTS`).

    Raises:
        UserError: the name is unknown.
    """
    known = architectures() | (PARTS if parts else {})
    if name not in known:
        raise UserError(
            f"architecture {name!r} is unknown; known: {', '.join(sorted(known))}; or use 'factory: pkg.file:Name'"
        )
    return known[name]


def task(name: str) -> Entry:
    """The entry of a registered task.

    Raises:
        UserError: the name is unknown.
    """
    if name not in TASKS:
        raise UserError(f"task {name!r} is unknown; known: {', '.join(sorted(TASKS))}")
    return TASKS[name]


def preset_options(cls: Any, preset: str) -> dict[str, Any]:
    """Options of `cls` under a preset: from ``PRESETS`` in its module, empty if it has none of that name."""
    presets = getattr(sys.modules[cls.__module__], "PRESETS", {})
    chosen = presets.get(preset)
    if chosen is None:
        return {}
    return (
        {field.name: getattr(chosen, field.name) for field in fields(chosen)} if is_dataclass(chosen) else dict(chosen)
    )


READ_LIKE_YAML = ConfigDict(coerce_numbers_to_str=True)
"""``version: 2023`` is a number to YAML, and a name to whoever writes it."""


def make_config(cls: Any, options: Mapping[str, Any], where: str) -> Any:
    """The frozen config dataclass of `cls` from options, with types checked.

    Raises:
        UserError: an option is unknown, missing or has a wrong type or value; the line names `where` and the option.
    """
    return _fill(cls.config_class, options, where, cls.__name__)


@cache
def _hints(config_class: Any) -> dict[str, Any]:
    """Types of the fields of a dataclass."""
    return get_type_hints(config_class)


@cache
def _checker(config_class: Any, field: str, nested: bool) -> TypeAdapter[Any]:
    """What checks the values of a field; made once, as that takes longer than to check."""
    return TypeAdapter(_hints(config_class)[field], config=None if nested else READ_LIKE_YAML)


def _fill(config_class: Any, options: Mapping[str, Any], where: str, owner: str) -> Any:
    """A dataclass of options; options that are dataclasses themselves are filled, and checked, alike."""
    hints = _hints(config_class)
    known = {field.name: field for field in fields(config_class)}
    checked = {}
    for key, value in options.items():
        if key not in known:
            raise UserError(f"{where}.{key}: unknown option of {owner}; known: {', '.join(sorted(known))}")
        nested = next((kind for kind in (hints[key], *get_args(hints[key])) if is_dataclass(kind)), None)
        if nested is not None and isinstance(value, Mapping):
            checked[key] = _fill(nested, value, f"{where}.{key}", key)
            continue
        try:
            checked[key] = _checker(config_class, key, nested is not None).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise UserError(f"{where}.{key}: {message[0].lower() + message[1:]}, got {value!r}") from None
    for key, field in known.items():
        if key not in checked and field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{where}.{key}: is missing; add it")
    try:
        return config_class(**checked)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: {error}") from error
