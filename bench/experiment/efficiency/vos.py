"""What is counted and timed for video object segmentation: reading the memory, by design, frames in memory, size and K.

Two extents are timed. Groups of 1 block time one attention operation on noise; groups of 11 blocks time a whole frame through
ConvMAE-Base, whose memory was written before. Both have the published width, whatever the preset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from bench import registry
from bench.contracts import Batch
from bench.experiment.efficiency.spec import Counted, Row, Sizes, Started, TimedCall, backward_too
from bench.experiment.efficiency.timing import TooSlow

ARCHITECTURE = "convmae-memory-backbone"
SIZES: dict[str, dict[str, Any]] = {
    "base": {"image_size": 384, "widths": (256, 384, 768), "layers": (2, 2, 11), "heads": 12},
    "large": {"image_size": 384, "widths": (384, 768, 1024), "layers": (2, 2, 20), "heads": 16},
}
WIDTH, BLOCKS, HEADS = 768, 11, 12
"""Of ConvMAE-Base's attention."""
PIXELS = {144: (192, 192), 576: (384, 384), 1620: (480, 864)}
"""Tokens of a frame -> its rows and columns of pixels."""
FRAMES = (1, 2, 4, 8)
TOPK = 60
"""K where none is named: what JointFormer sets for DAVIS."""

DESIGNS: dict[str, dict[str, Any]] = {
    "dense": {},
    "topk-all": {"memory_read": "topk", "topk": TOPK, "topk_scope": "all"},
    "topk-each": {"memory_read": "topk", "topk": TOPK, "topk_scope": "each"},
    "shared-subset": {"memory_read": "shared-subset"},
}
"""Label -> options."""
SUBSET_RATIO = 0.25
"""Share of a memory frame's tokens that ``shared-subset`` keeps."""

OPERATIONS = (
    ("dense", "full"), ("dense", "usage"), ("dense", "eager"), ("topk-all", "full"), ("topk-all", "mask"),
    ("topk-all", "gather"), ("topk-all", "bag"), ("topk-each", "full"), ("shared-subset", "full"), ("flex", "full"),
    ("parts", "scores"), ("parts", "selection"),
)  # fmt: skip
"""Label and mode of the timed attention operations: ``full`` is fused for dense attention and scatters for top-K."""
K_SWEEP, SWEPT_AT = (8, 20, 30, 60, 120), (576, 4)
BY_K = (("dense", "full"), ("topk-all", "full"), ("topk-all", "gather"), ("topk-all", "bag"))
TRAINED = ((144, 3, 16), (576, 2, TOPK))
"""Tokens, frames and K of the operations that are timed forward and backward."""
IN_TRAINING = (("dense", "full"), ("dense", "eager"), ("topk-all", "full"), ("topk-all", "gather"), ("topk-all", "bag"),
               ("shared-subset", "full"))  # fmt: skip
WHOLE_AT = 4
"""Frames in memory at which whole frames of the other designs are timed."""


def _row(label: str, mode: str, tokens: int, frames: int = 0, size: str = "base") -> Row:
    name = label if size == "base" else f"{label}-{size}"
    return Row(name, ARCHITECTURE, {"tokens": tokens, "frames": frames}, {**SIZES[size], **DESIGNS[label]}, mode)


def _rows() -> tuple[Row, ...]:
    rows = [_row("dense", mode, tokens) for tokens in PIXELS for mode in ("query", "write")]
    rows += [_row(label, "read", tokens, frames) for tokens in PIXELS for frames in FRAMES for label in DESIGNS]
    rows += [_row("dense", "recompute", tokens, frames) for tokens in PIXELS for frames in FRAMES]
    rows += [_row("dense", mode, 576, size="large") for mode in ("query", "write")]
    rows += [_row("dense", mode, 576, frames, "large") for frames in FRAMES for mode in ("read", "recompute")]
    return tuple(rows)


class VideoObjectSegmentation:
    """One attention operation, and whole frames of one object.

    Modes of a frame: ``query`` (its convolution trunk), ``write`` (a frame into the memory), ``read`` (trunk, then blocks that
    read cached keys and values), ``recompute`` (trunk, then blocks that project all memory tokens and run their MLP again).
    The last one is timed as ``full`` with its attention matrix written out, which is how it is published.
    """

    rows = _rows()
    training = False
    rounds = 6
    limit_seconds: ClassVar = {"cpu": 10.0, "cuda": 15.0}

    def groups(self, preset: str) -> tuple[Sizes, ...]:
        """At preset tiny what a CPU can do in ten minutes; otherwise 480p too."""
        sizes = [tokens for tokens in PIXELS if preset != "tiny" or tokens < 1000]
        made = [_group(tokens, frames) for tokens in sizes for frames in FRAMES]
        made += [_group(*SWEPT_AT, topk) for topk in K_SWEEP if topk != TOPK]
        made += [_group(144, 8, 8)]
        made += [_group(*trained, backward=True) for trained in TRAINED]
        made += [_group(tokens, frames, blocks=BLOCKS) for tokens in sizes for frames in FRAMES]
        return tuple(made)

    def counted(self, row: Row) -> Counted:
        """Module and meta batch of a row."""
        rows, columns = PIXELS[row.sizes["tokens"]]
        with torch.device("meta"):
            batch = {"image": torch.empty(1, 3, rows, columns), "masks": torch.empty(1, 1, rows, columns)}
        part = PARTS[row.mode]
        fields = ("image", "masks") if row.mode == "write" else ("image",)
        return Counted(lambda: part(_build(row.options), row.sizes["frames"], rows, columns), batch, fields)

    def setting(self, preset: str) -> dict[str, Any]:
        """Nothing: the sizes of the groups say it all."""
        return {}

    def models(self, preset: str) -> dict[str, nn.Module]:
        """ConvMAE-Base with every read-out; all share the weights of the first."""
        made = {"dense": _build(SIZES["base"])}
        weights = made["dense"].state_dict()
        for label in list(DESIGNS)[1:]:
            with torch.device("meta"):
                made[label] = _build({**SIZES["base"], **DESIGNS[label]})
            made[label].load_state_dict(weights, assign=True)
        return made

    def calls(
        self, models: Mapping[str, nn.Module], sizes: Sizes, preset: str, device: torch.device, seed: int
    ) -> list[TimedCall]:
        """The operations of a group, or whole frames."""
        if sizes["blocks"] > 1:
            return _frames(models, sizes, device, seed)
        chosen: Sequence[tuple[str, str]] = (
            IN_TRAINING if sizes["backward"] else BY_K if sizes["topk"] != TOPK else OPERATIONS
        )
        if (sizes["tokens"], sizes["frames"]) != SWEPT_AT:  # every size is compiled anew
            chosen = [each for each in chosen if each[0] != "flex"]
        return _operations(chosen, sizes, device, seed)


def _group(tokens: int, frames: int, topk: int = TOPK, blocks: int = 1, *, backward: bool = False) -> dict[str, int]:
    return {"tokens": tokens, "frames": frames, "topk": topk, "blocks": blocks, "backward": int(backward)}


# ---------------------------------------------------------------------------------------------------------- whole frames


class Part(nn.Module):
    """One mode of a frame of one object, to be counted or timed on its own."""

    def __init__(self, model: nn.Module, frames: int, height: int, width: int) -> None:
        """Take the backbone, the frames in memory and the size of a picture in pixels."""
        super().__init__()
        self.model: Any = model
        self.frames, self.height, self.width = frames, height, width

    @property
    def tokens(self) -> int:
        """Of a frame."""
        return int(self.height * self.width // self.model.config.stride**2)

    def flops(self, batch: Batch) -> int:
        """Closed form, which every mode has; the batch's sizes are known already."""
        raise NotImplementedError


class Query(Part):
    """The convolution trunk of a query frame, which all objects share."""

    def forward(self, image: Tensor) -> Tensor:
        """[1, 3, H, W] -> tokens [1, hw, C]."""
        tokens: Tensor = self.model.encode_query(image).tokens
        return tokens

    def flops(self, batch: Batch) -> int:
        """Closed form."""
        return int(self.model.flops_query(self.height, self.width))


class Write(Part):
    """A frame and its mask into keys and values."""

    def forward(self, image: Tensor, masks: Tensor) -> Tensor:
        """[1, 3, H, W] and [1, 1, H, W] -> keys and values of all blocks, one after the other."""
        return torch.cat(self.model.write(image, masks))

    def flops(self, batch: Batch) -> int:
        """Closed form."""
        return int(self.model.flops_write(self.height, self.width, 1))


class Read(Part):
    """The trunk of a query frame and its blocks, which read keys and values that are kept."""

    def __init__(self, model: nn.Module, frames: int, height: int, width: int) -> None:
        """As `Part`; the memory is empty space until `fill` is called."""
        super().__init__(model, frames, height, width)
        config = self.model.config
        shape = config.layers[2], 1, config.heads, frames * self.tokens, config.widths[2] // config.heads
        self.memory: tuple[Tensor, ...] = (torch.empty(shape), torch.empty(shape))

    def fill(self, tokens: Tensor) -> None:
        """Make the keys and values of memory tokens [L, N, T hw, C] as they enter each block."""
        parts = [block.project(each)[1:] for block, each in zip(self.model.blocks3, tokens, strict=True)]
        self.memory = tuple(torch.stack(part) for part in zip(*parts, strict=True))

    def forward(self, image: Tensor) -> Tensor:
        """[1, 3, H, W] -> f16 [1, 1, C, h16, w16]."""
        kind = registry.load_object("models.convmae:FrameMemory", "type")
        found: Tensor = self.model.read(self.model.encode_query(image), kind(*self.memory), self.frames).f16
        return found

    def flops(self, batch: Batch) -> int:
        """Closed form."""
        model, size = self.model, (self.height, self.width)
        return int(model.flops_query(*size) + model.flops_read(*size, self.frames, 1))


class Recompute(Part):
    """The trunk of a query frame and its blocks, each of which projects the memory's tokens and runs their MLP again."""

    def __init__(
        self, model: nn.Module, frames: int, height: int, width: int, attend: Callable[..., Tensor] | None = None
    ) -> None:
        """As `Part`; `attend` is fused unless given, and the memory is empty space until `fill` is called."""
        super().__init__(model, frames, height, width)
        self.attend: Callable[..., Tensor] = attend or nn.functional.scaled_dot_product_attention
        self.memory = torch.empty(self.model.config.layers[2], 1, frames * self.tokens, self.model.config.widths[2])

    def fill(self, tokens: Tensor) -> None:
        """Take the memory's tokens [L, N, T hw, C] as they enter each block."""
        self.memory = tokens

    def forward(self, image: Tensor) -> Tensor:
        """[1, 3, H, W] -> f16 [1, 1, C, h16, w16]."""
        tokens, _, f8 = self.model.encode_query(image)
        thrown = torch.zeros((), device=image.device)
        for block, kept in zip(self.model.blocks3, self.memory, strict=True):
            queries, keys, values = block.project(torch.cat([tokens, kept], dim=1))
            tokens = block.finish(tokens, self.attend(queries[:, :, : self.tokens], keys, values))
            thrown = thrown + (kept + block.mlp(block.norm2(kept)))[0, 0, 0]
        found: Tensor = self.model.to_map(tokens, f8)[None]
        return found + 0 * thrown  # a trace, by which FLOPs are counted, drops what nothing reads

    def flops(self, batch: Batch) -> int:
        """Closed form: a read, and 11 products as wide as a token for every memory token and block."""
        model, size = self.model, (self.height, self.width)
        again = 22 * model.config.layers[2] * self.frames * self.tokens * model.config.widths[2] ** 2
        return int(model.flops_query(*size) + model.flops_read(*size, self.frames, 1) + again)


PARTS: dict[str, Callable[..., Part]] = {"query": Query, "write": Write, "read": Read, "recompute": Recompute}


def eager(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Dense attention that writes its matrix out: [N, h, n, d] reads [N, h, m, d] -> [N, h, n, d]."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    return scores.softmax(-1) @ values


@torch.no_grad()
def memory_tokens(model: Any, image: Tensor, masks: Tensor) -> Tensor:
    """Tokens [L, N, T hw, C] of memory frames as they enter each block; `image` [T, 3, H, W] of one object and `masks`."""
    channels = torch.cat([image, masks, torch.zeros_like(masks)], dim=1)
    tokens, kept = model.trunk("patch_embed1_memory", channels).tokens, []
    for block in model.blocks3:
        kept.append(tokens.flatten(0, 1)[None])
        tokens = block.finish(tokens, nn.functional.scaled_dot_product_attention(*block.project(tokens)))
    return torch.stack(kept)


def _frames(models: Mapping[str, nn.Module], sizes: Sizes, device: torch.device, seed: int) -> list[TimedCall]:
    """Whole frames of one object: dense in every way, the other designs from their cache at `WHOLE_AT`."""
    frames, tokens = sizes["frames"], sizes["tokens"]
    rows, columns = PIXELS[tokens]
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(1 + frames, 3, rows, columns, generator=generator).to(device)
    masks = (torch.rand(frames, 1, rows, columns, generator=generator) < 0.5).float().to(device)
    written: list[Tensor] = []

    def call(label: str, mode: str, part: Callable[..., Part], *inputs: Tensor, **options: Any) -> TimedCall:
        model = models[label if label in models else "dense"]
        with torch.device("meta"):
            flops = part(model, frames, rows, columns, **options).flops({})

        def start() -> Started:
            with torch.device("meta"):
                made: Any = part(model, frames, rows, columns, **options)
            held = 0
            if hasattr(made, "fill"):
                if not written:
                    written.append(memory_tokens(models["dense"], images[1:], masks))
                made.fill(written[0])
                held = sum(kept.numel() * kept.element_size() for kept in _tensors(made.memory))
            return Started(lambda: made(*inputs), held)

        # A name of its own: how long a frame takes is not foreseen from operations.
        return TimedCall(f"frame {label}", mode, flops, 0, (1 + frames) * tokens, start)

    query = images[:1]
    made = [call("dense", "full", Recompute, query, attend=eager), call("dense", "read", Read, query)]
    made.append(call("parts", "query", Query, query))
    if frames == 1:
        made.append(call("parts", "write", Write, query, masks))
    if frames == WHOLE_AT:
        made.append(call("dense", "recompute", Recompute, query))
        made += [call(label, "read", Read, query) for label in DESIGNS if label != "dense"]
    return made


def _tensors(memory: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return memory if isinstance(memory, tuple) else (memory,)


# ------------------------------------------------------------------------------------------------------- one operation


def _operations(chosen: Sequence[tuple[str, str]], sizes: Sizes, device: torch.device, seed: int) -> list[TimedCall]:
    """One attention of `HEADS` heads on noise, in bf16 on a GPU."""
    frames, tokens = sizes["frames"], sizes["tokens"]
    generator = torch.Generator().manual_seed(seed)

    def noise(length: int) -> Tensor:
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        return torch.randn(1, HEADS, length, WIDTH // HEADS, generator=generator).to(device, dtype)

    tensors = noise(tokens), noise((1 + frames) * tokens), noise((1 + frames) * tokens)
    extent = (1 + frames) * tokens
    made = []
    for label, mode in chosen:
        flops, run = _flops(label, mode, sizes), _operation(label, mode, sizes)
        start = _compiled(run, tensors) if label == "flex" else _forward(run, tensors)
        if sizes["backward"]:
            flops, start = backward_too(flops), _backward(run, tensors)
        made.append(TimedCall(label, mode, flops, 0, extent, start))
    return made


def _forward(run: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> Callable[[], Started]:
    return lambda: Started(lambda: run(*tensors), 0)


def _compiled(run: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> Callable[[], Started]:
    """A call that is compiled before it is timed, and left out where that fails: without a compiler, say."""

    def alone() -> Tensor:
        with _disable_current_modes():  # compiled code does not run while its memory is watched, which is not seen then
            return run(*tensors)

    def start() -> Started:
        try:
            alone()
        except (ValueError, RuntimeError) as error:
            raise TooSlow(f"cannot run here: {str(error).splitlines()[0]}") from None
        return Started(alone, 0)

    return start


def _backward(run: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> Callable[[], Started]:
    """Forward and backward of queries, keys and values, though calls are timed in inference mode otherwise."""

    def step() -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            leaves = [tensor.clone().requires_grad_() for tensor in tensors]
            out = run(*leaves)
            torch.autograd.backward(out, out.detach())
            return out.detach()

    return lambda: Started(step, 0)


def _operation(label: str, mode: str, sizes: Sizes) -> Callable[..., Tensor]:
    """Queries, keys and values [1, h, n, d] -> what is read, or the part of top-K that is timed on its own."""
    frames, tokens, topk = sizes["frames"], sizes["tokens"], sizes["topk"]
    if label == "parts":

        def scores(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            return queries @ keys.transpose(-2, -1)

        return scores if mode == "scores" else _selection(scores, tokens, topk)
    if mode == "eager":
        return eager
    read = _read_out(label, mode, topk)
    return lambda *tensors: read(*tensors, frames, mode == "usage").out


def _selection(scores: Callable[..., Tensor], tokens: int, topk: int) -> Callable[..., Tensor]:
    """The largest memory scores alone: the scores are computed once."""
    known: list[Tensor] = []

    def select(*tensors: Tensor) -> Tensor:
        if not known:
            known.append(scores(*tensors)[..., tokens:].contiguous())
        return known[0].topk(min(topk, known[0].shape[-1]), sorted=False).values

    return select


def _read_out(label: str, mode: str, topk: int) -> Any:
    """A read-out of `models.layers.memory_read`."""
    cls = registry.load_object("models.layers.memory_read:MemoryRead", "read-out")
    if label in ("dense", "flex"):
        return cls(kind=label)
    if label == "shared-subset":
        return cls(kind=label, subset_ratio=SUBSET_RATIO)
    implementation = "scatter" if mode == "full" else mode
    return cls(kind="topk", topk=topk, scope=label.removeprefix("topk-"), implementation=implementation)


def _flops(label: str, mode: str, sizes: Sizes) -> int:
    """Closed form of an operation, as executed."""
    frames, tokens, topk = sizes["frames"], sizes["tokens"], sizes["topk"]
    if (label, mode) == ("parts", "scores"):
        return 2 * tokens * (1 + frames) * tokens * WIDTH
    if (label, mode) == ("parts", "selection"):
        return HEADS * tokens * frames * tokens  # scores that it searches: no FLOPs, but its time grows with them
    read = _read_out(label, "full" if mode in ("usage", "eager") else mode, topk)
    return int(read.flops(tokens, frames, WIDTH, HEADS if mode == "usage" else 0))


def _build(options: Mapping[str, Any]) -> nn.Module:
    cls = registry.load_object(registry.architecture(ARCHITECTURE, parts=True).target, "architecture")
    made: nn.Module = cls(registry.make_config(cls, options, ARCHITECTURE))
    return made
