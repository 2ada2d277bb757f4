"""What is counted and timed for open-vocabulary segmentation: CAT-Seg's modules, its aggregator, pictures and steps.

Everything is counted at the published sizes. The aggregator and class attention are timed at the published width with few
classes, whole pictures with small towers, and training steps with CLIP's smallest towers: what a CPU can do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench import registry
from bench.contracts import Batch
from bench.experiment.efficiency.openvocab_parts import (
    PIECES,
    AsPublished,
    Picture,
    aggregator_shapes,
    function,
    image_tower,
    piece,
    piece_shapes,
    text_tower,
)
from bench.experiment.efficiency.spec import Counted, Row, Sizes, Started, TimedCall, backward_too

AGGREGATOR, MODEL = "catseg-aggregator", "catseg"
CLASSES_OF = {AGGREGATOR: "models.catseg_aggregator:CATSegAggregator", MODEL: "models.catseg:CATSeg"}
META = torch.device("meta")
PUBLISHED_2023: dict[str, Any] = {
    "version": "2023",
    "prompts": 80,
    "class_padding": None,
    "appearance_guidance": [512, 128],
    "decoder_guidance": [[256, 128], [32, 16]],
}
NO_DECODER_GUIDANCE = [[256, 128], [0, 0]]
DESIGNS: dict[str, dict[str, Any]] = {
    "2023": {},
    "2023-full-attention": {"attention": "full"},
    "2023-no-appearance": {"appearance_guidance": [512, 0]},
    "2023-no-text": {"appearance_guidance": [512, 0], "text_guidance": [768, 0]},
    "2023-no-guidance": {
        "appearance_guidance": [512, 0],
        "text_guidance": [768, 0],
        "decoder_guidance": NO_DECODER_GUIDANCE,
    },
    "2023-feature": {"volume": "feature"},
    "2024": {},
    "2024-full-attention": {"attention": "full"},
    "unpadded": {},
    "unpadded-full-attention": {"attention": "full"},
    "unpadded-feature": {"volume": "feature"},
    "unpadded-prompts-80": {"prompts": 80},
    "unpadded-no-appearance": {"appearance_guidance": [768, 0]},
    "unpadded-no-text": {"text_guidance": [768, 0]},
    "unpadded-no-decoder-guidance": {"decoder_guidance": NO_DECODER_GUIDANCE},
    "unpadded-no-guidance": {
        "appearance_guidance": [768, 0],
        "text_guidance": [768, 0],
        "decoder_guidance": NO_DECODER_GUIDANCE,
    },
    "unpadded-conv": {"spatial": "conv"},
    "unpadded-no-spatial": {"spatial": "none"},
    "unpadded-no-classes": {"classwise": False},
    "unpadded-no-decoder": {"decoder": False},
}
"""Aggregator -> what differs from that version on ViT-L; ``unpadded`` is 2024 without class padding."""
PADDED = ("2024", "2024-full-attention", "unpadded", "unpadded-full-attention")
"""Those that are timed at every number of classes; at `AT` all of 2024 are."""
RUN = (*(label for label in DESIGNS if label.startswith("2023")), *PADDED, "unpadded-feature")
"""Those that are counted as published too; of most others of 2024 no published run is known."""
AT, TIMED_CLASSES = 20, (8, 20, 64)
CHUNK = 5
"""Classes at a time of the ``chunked`` mode."""
POOLED = "unpadded-pooled"
MODES = {
    "2024": ("published", "folded"),
    "unpadded": ("published", "chunked"),
    "unpadded-feature": ("published",),
}
"""What is timed of a design beside ``full``, at `AT` classes."""
MODES_ELSEWHERE = {"2024": ("folded",)}
VARIANTS: dict[str, dict[str, Any]] = {"folded": {"fold_padding": True}, "chunked": {"class_chunk": CHUNK}}
"""Mode -> option that makes it."""

VIT_B: dict[str, Any] = {
    "clip_model": "ViT-B-16-quickgelu",
    "feature_width": 512,
    "text_guidance": [512, 128],
    "appearance_guidance": [512, 128],
}
SWIN: dict[str, Any] = {**PUBLISHED_2023, "guidance_backbone": "swin-b"}
TOWERS: dict[str, dict[str, Any]] = {
    "clip-l": {"decoder_guidance": NO_DECODER_GUIDANCE},
    "clip-b": {**VIT_B, "decoder_guidance": NO_DECODER_GUIDANCE},
    "swin-b": SWIN,
}
"""Tower -> options of a network that has it, without what enlarges its maps for the decoder."""
MODELS: dict[str, dict[str, Any]] = {
    "2024-l": {},
    "2024-l-blocks": {"train_towers": "full"},
    "2024-l-cached": {"text_training": "cached"},
    "2024-l-unpadded": {"class_padding": None},
    "2024-b": VIT_B,
    "2024-b-cached": {**VIT_B, "text_training": "cached"},
    "2023-l": {**SWIN, "train_towers": "attention", "text_training": "cached"},
}
"""Whole network -> what differs from that of 2024 on ViT-L, which trains queries and values of both towers."""
CONTEXT, SHORT = 77, 16
"""Tokens that texts are filled up to as published, and what class names in one prompt need."""
STEP_AT = {"classes": 171, "length": CONTEXT}

SMALL_STEP: dict[str, Any] = {
    "clip_model": "ViT-S-16",
    "clip_weights": "random",
    "feature_width": 384,
    "text_guidance": [384, 64],
    "appearance_guidance": [384, 64],
    "hidden_width": 64,
    "resolution": [12, 12],
    "window_size": 6,
    "crop_size": 192,
    "class_padding": None,
}
STEPS: dict[str, dict[str, Any]] = {"step-graph": {}, "step-cached": {"text_training": "cached"}}
PICTURES: dict[str, dict[str, Any]] = {"sliding": {"inference": "sliding"}, "single": {}}
PICTURE = {"classes": 20, "pixels": 256}
STEP = {"classes": 8, "length": CONTEXT}

CLASSES = (20, 64, 150, 256, 512, 847)
PLACES = 144
"""Pooled places of a 24 x 24 grid, as in training."""
WIDTHS = {128: CLASSES, 32: (20, 64, 256)}
"""Hidden width -> numbers of classes at which class attention is timed."""
ATTENTIONS = ("linear", "full")
HEADS = 4


def _rows() -> tuple[Row, ...]:
    rows = [Row(label, MODEL, {"pixels": 384}, options, "image") for label, options in TOWERS.items()]
    rows += [
        Row(label, MODEL, {"classes": 171, "length": length}, TOWERS[label], "text")
        for label in ("clip-l", "clip-b")
        for length in (CONTEXT, SHORT)
    ]
    for label in DESIGNS:
        for classes, pooling in _counted_at(label):
            sizes, options = {"classes": classes, "pooling": pooling}, _design(label, pooling)
            modes = ("full", "published") if label in RUN else ("full",)
            rows += [Row(label, AGGREGATOR, sizes, options, mode) for mode in modes]
    for label in ("2023", "2024"):
        sizes = {"classes": 150, "pooling": 1}
        rows += [Row(label, AGGREGATOR, sizes, _design(label, 1), part) for part in PIECES]
    for label, options in MODELS.items():
        rows.append(Row(label, MODEL, STEP_AT, options, "step"))
    rows += [Row(label, MODEL, STEP_AT, MODELS[label], "whole") for label in ("2024-l", "2024-b", "2023-l")]
    for label in ("2024-l", "2024-l-unpadded", "2024-b", "2023-l"):
        for inference, windows in (("sliding", 5), ("single", 1)):
            options = {**MODELS[label], "inference": inference, "test_pooling_size": [1, 1]}
            rows.append(Row(label, MODEL, {"classes": 150, "windows": windows}, options, "picture"))
    rows += [Row(label, MODEL, STEP, {**SMALL_STEP, **options}, "step") for label, options in STEPS.items()]
    return tuple(rows)


def _counted_at(label: str) -> tuple[tuple[int, int], ...]:
    """Classes and pooling at which an aggregator is counted."""
    trained = ((171, 2),) if label in ("2023", "2023-full-attention", "2024") else ()
    if label in (*PADDED, "2023", "2023-full-attention"):
        return (20, 1), (150, 1), *trained, (847, 1)
    return ((150, 1),)


def _design(label: str, pooling: int) -> dict[str, Any]:
    version = PUBLISHED_2023 if label.startswith("2023") else {}
    padding = {"class_padding": None} if label.startswith("unpadded") else {}
    return {**version, **padding, **DESIGNS[label], "pooling_size": [pooling, pooling]}


class OpenVocabulary:
    """The parts of CAT-Seg, the aggregator in every design, whole pictures and training steps.

    Modes of an aggregator: ``full``; ``published`` (guidance projected anew for each class and place); ``folded`` (fillers,
    which are all alike, computed once); ``chunked`` (few classes at a time). Weights are random, which does not change the
    cost.
    """

    rows = _rows()
    training = False
    rounds = 6
    limit_seconds: ClassVar = {"cpu": 15.0, "cuda": 15.0}

    def groups(self, preset: str) -> tuple[Sizes, ...]:
        """At preset tiny few classes; otherwise 150 too. The keys tell what is timed."""
        numbers = TIMED_CLASSES if preset == "tiny" else (*TIMED_CLASSES, 150)
        made: list[Sizes] = [{"classes": classes, "places": PLACES, "width": width}
                             for width, numbers_ in WIDTHS.items() for classes in numbers_]  # fmt: skip
        return (*made, *({"classes": classes, "grid": 24} for classes in numbers), PICTURE, STEP)

    def counted(self, row: Row) -> Counted:
        """Module and meta batch of a row."""
        sizes, mode = row.sizes, row.mode
        if mode in ("image", "text"):
            return _counted_tower(row)
        if row.architecture == MODEL:
            return _counted_model(row)
        config, classes = _config(AGGREGATOR, row.options), sizes["classes"]
        shapes = piece_shapes(config, mode, classes) if mode in PIECES else aggregator_shapes(config, classes)

        def build() -> nn.Module:
            model = _build(AGGREGATOR, config)
            if mode in PIECES:
                return piece(model, mode, classes)
            return AsPublished(model) if mode == "published" else model

        return Counted(build, _batch(shapes, META), tuple(shapes))

    def setting(self, preset: str) -> dict[str, Any]:
        """Nothing: the sizes of the groups say it all."""
        return {}

    def models(self, preset: str) -> dict[str, nn.Module]:
        """The aggregators of 2024, class blocks of every width, networks for pictures and for steps."""
        made: dict[str, nn.Module] = {
            label: _build(AGGREGATOR, _config(AGGREGATOR, _design(label, 1)))
            for label in DESIGNS
            if not label.startswith("2023")
        }
        made[POOLED] = _build(AGGREGATOR, _config(AGGREGATOR, _design("unpadded", 2)))
        block = function("class_attention", "ClassBlock")
        for width in WIDTHS:
            made |= {f"{kind}-{width}": block(width, width, HEADS, kind) for kind in ATTENTIONS}
        made |= {label: _build(MODEL, _config(MODEL, options, "small")) for label, options in PICTURES.items()}
        steps = {label: {**SMALL_STEP, **options} for label, options in STEPS.items()}
        made |= {label: _build(MODEL, _config(MODEL, options)) for label, options in steps.items()}
        return made

    def calls(
        self, models: Mapping[str, nn.Module], sizes: Sizes, preset: str, device: torch.device, seed: int
    ) -> list[TimedCall]:
        """Class attention, aggregators, pictures, or steps."""
        if "places" in sizes:
            return _attentions(models, sizes, device, seed)
        if "grid" in sizes:
            return _aggregators(models, sizes["classes"], device, seed)
        if "pixels" in sizes:
            return _pictures(models, sizes, device, seed)
        return _steps(models, sizes, device, seed)


# ---------------------------------------------------------------------------------------------------------------- counting


def _counted_tower(row: Row) -> Counted:
    config = _config(MODEL, row.options)
    if row.mode == "text":
        classes, length = row.sizes["classes"], row.sizes["length"]
        batch = {"tokens": _tokens(classes, length)}
        return Counted(lambda: text_tower(_build(MODEL, config), classes, length), batch, ("tokens",))
    edge = row.sizes["pixels"]
    return Counted(lambda: image_tower(_build(MODEL, config)), _batch({"image": [1, 3, edge, edge]}, META), ("image",))


def _counted_model(row: Row) -> Counted:
    config, classes = _config(MODEL, row.options), row.sizes["classes"]
    if row.mode in ("step", "whole"):
        edge = config.crop_size
        batch = _batch({"image": [1, 3, edge, edge]}, META)
        tokens = _tokens(classes * config.prompts, row.sizes["length"])
        batch["names"] = tokens.unflatten(1, (classes, config.prompts))
        whole = row.mode == "whole"  # its weights are all counted, frozen or not

        def build() -> nn.Module:
            model = _build(MODEL, config)
            return model.requires_grad_(True) if whole else model

        return Counted(build, batch, ("image", "names"))
    shapes = {"image": [1, 3, 480, 640], "text": [classes, config.prompts, config.feature_width]}
    return Counted(lambda: Picture(_build(MODEL, config)), _batch(shapes, META), ("image", "text"))


def _tokens(texts: int, length: int) -> Tensor:
    return torch.zeros(1, texts, length, dtype=torch.long, device=META)


def _batch(shapes: Mapping[str, Sequence[int]], device: torch.device, seed: int = 0) -> Batch:
    """Noise of these shapes."""
    if device.type == "meta":
        return {name: torch.empty(*shape, device=device) for name, shape in shapes.items()}
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(*shape, generator=generator).to(device) for name, shape in shapes.items()}


def _config(architecture: str, options: Mapping[str, Any], preset: str = "") -> Any:
    """Options of an architecture: of a preset, or of the published size."""
    cls = registry.load_object(CLASSES_OF[architecture], "architecture")
    return registry.make_config(cls, {**registry.preset_options(cls, preset), **options}, architecture)


def _build(architecture: str, config: Any) -> nn.Module:
    made: nn.Module = registry.load_object(CLASSES_OF[architecture], "architecture")(config)
    return made


# ------------------------------------------------------------------------------------------------------------------ timing


def _attentions(models: Mapping[str, nn.Module], sizes: Sizes, device: torch.device, seed: int) -> list[TimedCall]:
    """Class attention alone, and the block that it is in, linear and full, on noise."""
    classes, places, width = sizes["classes"], sizes["places"], sizes["width"]
    heads = _batch({name: [places, classes, HEADS, width // HEADS] for name in "qkv"}, device, seed)
    edge = round(places**0.5)
    block_inputs = _batch({"x": [1, classes, edge, edge, width], "text": [1, classes, width]}, device, seed)
    block_flops, guidance_flops = (
        function("class_attention", name) for name in ("class_flops", "class_guidance_flops")
    )
    made = []
    for kind in ATTENTIONS:
        attend, block = function("class_attention", f"{kind}_attention"), models[f"{kind}-{width}"]
        whole = block_flops(places, classes, width, HEADS, kind)
        # What is no attention in a block: 11 products as wide as a token.
        alone = whole - 22 * places * classes * width**2
        made.append(_call(f"class {kind}", "attention", alone, classes, partial(attend, *heads.values())))
        run = partial(block, *block_inputs.values(), (1, 1))
        made.append(_call(f"class {kind}", "block", whole + guidance_flops(classes, width, width), classes, run))
    return made


def _aggregators(models: Mapping[str, nn.Module], classes: int, device: torch.device, seed: int) -> list[TimedCall]:
    """Aggregators: all designs at `AT` classes, those that differ by the number of classes elsewhere."""
    made = []
    for label, model in models.items():
        if label not in (*DESIGNS, POOLED) or (classes != AT and label not in PADDED):
            continue
        batch = _batch(aggregator_shapes(model.config, classes), device, seed)
        for mode in ("full", *(MODES.get(label, ()) if classes == AT else MODES_ELSEWHERE.get(label, ()))):
            made.append(_aggregator_call(label, mode, model, batch, classes))
    return made


def _aggregator_call(label: str, mode: str, model: Any, batch: Batch, classes: int) -> TimedCall:
    with torch.device("meta"):
        variant: Any = type(model)(replace(model.config, **VARIANTS.get(mode, {}))).eval()
    flops = variant.published_flops(batch) if mode == "published" else variant.flops(batch)

    def start() -> Started:
        variant.load_state_dict(model.state_dict(), assign=True)
        published: Any = AsPublished(variant).eval()
        return Started(lambda: published(**batch) if mode == "published" else variant(**batch)["logits"], 0)

    return TimedCall(label, mode, int(flops), 0, classes, start)


def _pictures(models: Mapping[str, nn.Module], sizes: Sizes, device: torch.device, seed: int) -> list[TimedCall]:
    """A picture in five windows and in one, with small towers."""
    made = []
    for label in PICTURES:
        model: Any = models[label]
        config, module = model.config, Picture(model)
        text = [sizes["classes"], config.prompts, config.feature_width]
        batch = _batch({"image": [1, 3, sizes["pixels"], sizes["pixels"]], "text": text}, device, seed)
        made.append(_call(label, "picture", module.flops(batch), sizes["pixels"] ** 2, partial(module, **batch)))
    return made


def _steps(models: Mapping[str, nn.Module], sizes: Sizes, device: torch.device, seed: int) -> list[TimedCall]:
    """A step of one picture, forward and backward, with the text tower in it and with texts that were read before."""
    made = []
    for label in STEPS:
        model: Any = models[label]
        config = model.config
        batch = _batch({"image": [1, 3, config.crop_size, config.crop_size]}, device, seed)
        generator = torch.Generator().manual_seed(seed)
        names = torch.randint(1, 1000, (1, sizes["classes"], config.prompts, sizes["length"]), generator=generator)
        batch["names"] = names.to(device)
        made.append(_call(label, "step", backward_too(model.flops(batch)), 1, partial(_step, model, batch)))
    return made


def _step(model: nn.Module, batch: Batch) -> Tensor:
    """The loss of a step, whose gradients are dropped, though calls are timed in inference mode otherwise."""
    with torch.inference_mode(False), torch.enable_grad():
        inputs = {name: value.clone() for name, value in batch.items()}
        loss: Tensor = model.train()(**inputs)["logits"].square().mean()
        torch.autograd.backward(loss)
        model.zero_grad(set_to_none=True)
        return loss.detach()


def _call(label: str, mode: str, flops: int, extent: int, run: Callable[[], Tensor]) -> TimedCall:
    return TimedCall(label, mode, int(flops), 0, extent, lambda: Started(run, 0))
