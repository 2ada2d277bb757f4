"""Video object segmentation with a memory of frames: ConvMAE reads the memory, a U-Net draws the masks.

A frame is segmented in the light of frames whose masks are given or were predicted before. Each object has its own memory
and its own query stream; the frame's convolution trunk runs once for all. Of a frame in memory only keys and values are
kept, made once, when the first frame comes that may read it.

Axes: B clips, F frames of a clip, O object slots, H x W pixels, T memory frames, L attention blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.convmae import SIZES, ConvMAEMemoryBackbone, ConvMAEMemoryConfig, FrameMemory
from models.layers.config import require_choice, require_positive
from models.layers.mask_decoder import MaskDecoder, aggregate, enforce
from models.layers.trained_networks import digest
from models.layers.video_memory import MemoryBank, MemoryPolicy
from models.reference import unwrap_keys

TRAIN_MEMORIES = ("recent", "random")


@dataclass(frozen=True)
class VOSMemoryConfig(ConvMAEMemoryConfig):
    """Size of backbone and decoder, and what is kept in memory; the defaults are ConvMAE-Base at 384 px."""

    decoder_width: int = 256
    """Channels behind each of the decoder's two blocks."""
    memory_every: int = 5
    """At inference, keep frames 0, n, 2n, ..."""
    max_memory_frames: int | None = None
    """At inference, most frames kept, frame 0 among them and a temporary last one not; null: no bound."""
    include_last: bool = True
    """At inference, let a frame read the one before it also where that is not kept."""
    eviction: str = "fifo"
    """At inference, which kept frame, never frame 0, makes room for the next: the oldest (``fifo``), or the one that was
    read least, a read frame on average (``usage``)."""
    train_memory_frames: int = 2
    """In training, most frames that a frame reads, frame 0 among them."""
    train_memory: str = "recent"
    """In training, the others: the most ``recent`` ones, or a ``random`` choice of those before."""
    backbone_weights: str | None = None
    """Local file (.pt, .pth) that the backbone starts from, as `VOSMemory.load_backbone` reads it; null: random weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "decoder_width", "memory_every", "train_memory_frames")
        if self.max_memory_frames is not None:
            require_positive(self, "max_memory_frames")
        require_choice(self, "train_memory", TRAIN_MEMORIES)
        _ = self.inference_policy  # checks the rest

    @property
    def inference_policy(self) -> MemoryPolicy:
        """What is kept and read at inference."""
        return MemoryPolicy(self.memory_every, self.max_memory_frames, self.include_last, self.eviction)

    @property
    def training_policy(self) -> MemoryPolicy:
        """What is kept and read in training."""
        if self.train_memory == "random":
            return MemoryPolicy(every=1, include_last=False, draws=self.train_memory_frames)
        return MemoryPolicy(every=1, include_last=False, max_frames=self.train_memory_frames)


PRESETS: dict[str, VOSMemoryConfig] = {
    "tiny": VOSMemoryConfig(
        init="matching",
        image_size=64,
        strides=(4, 2, 1),
        widths=(32, 64, 96),
        layers=(1, 1, 3),
        heads=4,
        decoder_width=32,
    ),
    "small": VOSMemoryConfig(
        init="matching",
        image_size=128,
        strides=(4, 2, 2),
        widths=(64, 128, 256),
        layers=(2, 2, 6),
        heads=8,
        decoder_width=128,
    ),
    "paper": VOSMemoryConfig(image_size=384, **SIZES["base"]),
}


def read_weights(path: Path) -> dict[str, Any]:
    """Read the state dict of a weight file.

    Raises:
        ValueError: there is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"backbone_weights must be a file, got {str(path)!r}: mend the path")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or foreign file fails in as many ways as there are formats
        raise ValueError(
            f"backbone_weights {path} cannot be read ({type(error).__name__}): give a .pt or .pth file"
        ) from error
    return state


class _Starting(NamedTuple):
    """The objects that start in a frame."""

    masks: Tensor
    """[B, O, H, W] in {0, 1}, padded."""
    given: Tensor
    """bool [B, O], which objects these are."""


class _Pending(NamedTuple):
    """A frame that is segmented, and is written into memory when the next one comes."""

    frame: Tensor
    """[B, 3, H, W], padded."""
    masks: Tensor
    """[B, O, H, W], likewise: probabilities."""
    given: Tensor | None
    """bool [B, O]: objects that start in it, behind frame 0."""


class VideoStream:
    """Segments a batch of clips frame by frame, with the memory that its policy bounds.

    `VOSMemory.stream` makes one. It belongs to the weights as they are; nothing is kept for gradients.
    """

    usage: Tensor | None
    """[L, B, O, T] of the last step: attention mass of each memory frame, 0 for objects that had not started; None unless
    it was asked for, and in frame 0."""

    def __init__(self, model: VOSMemory, policy: MemoryPolicy, *, usage: bool = False) -> None:
        self.usage = None
        self._model = model
        self._usage = usage
        self._bank: MemoryBank[FrameMemory] = MemoryBank(policy)
        self._count = 0
        self._pending: _Pending | None = None
        self._started: Tensor | None = None

    @property
    def memory_frames(self) -> tuple[int, ...]:
        """Numbers of the T frames that the last step read, oldest first; empty in frame 0.

        For an object that started later than such a frame, the frame of its start stood there in its place.

        Raises:
            ValueError: the clips read different frames, which ``eviction: usage`` may make them do.
        """
        frames = self.clip_memory_frames
        if any(numbers != frames[0] for numbers in frames):
            raise ValueError(
                "memory_frames differ from clip to clip with eviction 'usage': ask for clip_memory_frames, or stream "
                "one clip"
            )
        return frames[0] if frames else ()

    @property
    def clip_memory_frames(self) -> tuple[tuple[int, ...], ...]:
        """The same for each of the B clips; empty in frame 0."""
        return tuple(map(tuple, self._bank.frames))

    @property
    def query_tokens(self) -> int:
        """Tokens hw of a frame, the most that usage sums to; 0 before frame 0."""
        if self._pending is None:
            return 0
        height, width = self._pending.frame.shape[-2:]
        return height * width // self._model.config.stride**2

    @torch.no_grad()
    def step(self, frame: Tensor, masks: Tensor | None = None, given: Tensor | None = None) -> Tensor:
        """Segment the next frame.

        Args:
            frame: [B, 3, H, W], normalised as in training.
            masks: [B, O, H, W] in {0, 1}, masks of the objects that start in this frame; needed in frame 0.
            given: bool [B, O], which objects these are; None: those whose mask is not empty.

        Returns:
            fp32 logits [B, 1 + O, H, W], background first; their softmax gives the probabilities.

        Raises:
            ValueError: no masks in frame 0, or sizes that do not fit the frames before.
        """
        return self.advance(frame, masks, given)

    def advance(self, frame: Tensor, masks: Tensor | None, given: Tensor | None) -> Tensor:
        """`step`, with gradients."""
        starting = self._starting(frame, masks, given)
        height, width = frame.shape[-2:]
        frame = self._model.padded(frame)
        self._write_pending()
        if self._started is None:
            assert starting is not None
            self._started = torch.zeros_like(starting.given)
            logits = aggregate(torch.zeros_like(starting.masks), self._started)
        else:
            logits = self._read(frame, self._started)
        if starting is not None:
            logits = enforce(logits, *starting)
            self._started = self._started | starting.given
        given = None if starting is None or self._count == 0 else starting.given
        self._pending = _Pending(frame, logits.softmax(1)[:, 1:], given)
        self._count += 1
        return logits[..., :height, :width]

    def _starting(self, frame: Tensor, masks: Tensor | None, given: Tensor | None) -> _Starting | None:
        """Check what a step was called with; what starts in the frame, which there is in frame 0."""
        if frame.ndim != 4 or frame.shape[1] != 3:
            raise ValueError(f"frame must be [B, 3, H, W], got {list(frame.shape)}")
        if self._pending is not None:
            before = self._model.padded_size(*frame.shape[-2:])
            if (len(frame), *before) != (len(self._pending.frame), *self._pending.frame.shape[-2:]):
                raise ValueError(
                    f"frame must be as large as the frames before, got {list(frame.shape)}: start another stream"
                )
        if masks is None:
            if self._pending is None:
                raise ValueError("masks must be given in frame 0, got None: it says how many objects there are")
            return None
        slots = masks.shape[1] if self._started is None else self._started.shape[1]
        if masks.shape != (len(frame), slots, *frame.shape[-2:]):
            raise ValueError(
                f"masks must be [B, O, H, W] = {[len(frame), slots, *frame.shape[-2:]]}, got {list(masks.shape)}"
            )
        given = masks.flatten(2).any(2) if given is None else given
        return _Starting(self._model.padded(masks.float()), given)

    def _write_pending(self) -> None:
        """Make keys and values of the frame before, if it will be read or an object starts in it."""
        pending, frame = self._pending, self._count - 1
        if pending is None or (pending.given is None and not self._bank.policy.writes(frame)):
            return
        entry = self._model.convmae.write(pending.frame, pending.masks)
        given = None if pending.given is None else pending.given.flatten()
        self._bank.write(frame, entry, given, len(pending.frame))

    def _read(self, frame: Tensor, started: Tensor) -> Tensor:
        """Segment a padded frame with the memory: logits of the objects that have started."""
        memory = self._bank.read()
        query = self._model.convmae.encode_query(frame)
        result = self._model.convmae.read(
            query, memory, len(memory), usage=self._usage or self._bank.policy.needs_usage
        )
        if result.usage is not None:
            usage = result.usage.unflatten(1, started.shape) * started[..., None]
            self.usage = usage if self._usage else None
            if self._bank.policy.needs_usage:
                self._bank.tally(usage.sum((0, 2)))
        logits = self._model.decoder(result.f16, query.f8, query.f4, (frame.shape[-2], frame.shape[-1]))
        return aggregate(logits, started)


class VOSMemory(nn.Module):
    """Memory backbone and mask decoder.

    In training mode frames are read as ``train_memory_frames`` says, in evaluation mode as at inference. Gradients flow
    through the masks that are written into memory.
    """

    config_class: ClassVar[type[VOSMemoryConfig]] = VOSMemoryConfig
    config: VOSMemoryConfig

    def __init__(self, config: VOSMemoryConfig) -> None:
        super().__init__()
        self.config = config
        self.convmae = ConvMAEMemoryBackbone(config)
        first, second, third = config.widths
        self.decoder = MaskDecoder((first, second, third), config.decoder_width)
        self.backbone_sha256 = ""
        if config.backbone_weights and not self.convmae.pos_embed.is_meta:
            path = Path(config.backbone_weights).expanduser()
            self.load_backbone(read_weights(path))
            self.backbone_sha256 = digest(path)

    @property
    def policy(self) -> MemoryPolicy:
        """What is kept and read in the mode, training or not, that the model is in."""
        return self.config.training_policy if self.training else self.config.inference_policy

    def forward(self, frames: Tensor, first_masks: Tensor, start: Tensor) -> dict[str, Tensor]:
        """Segment clips, each frame by itself and the frames before.

        Args:
            frames: [B, F, 3, H, W], normalised by ImageNet's mean and deviation.
            first_masks: [B, O, H, W] in {0, 1}: each object's mask in the frame where it is given.
            start: [B, O] int64, the number of that frame; -1 for an empty slot.

        Returns:
            ``logits``: fp32 [B, F, 1 + O, H, W], background first; their softmax gives the probabilities. Slots that are
            empty or have not started have next to none; in an object's first frame its given mask stands.

        Raises:
            ValueError: shapes that do not fit one another.
        """
        if frames.ndim != 5 or frames.shape[2] != 3:
            raise ValueError(f"frames must be [B, F, 3, H, W], got {list(frames.shape)}")
        if start.shape != first_masks.shape[:2]:
            raise ValueError(f"start must be [B, O] = {list(first_masks.shape[:2])}, got {list(start.shape)}")
        stream = VideoStream(self, self.policy)
        logits = []
        for number, frame in enumerate(frames.unbind(1)):
            given = self._given(number, start)
            logits.append(stream.advance(frame, None if given is None else first_masks, given))
        return {"logits": torch.stack(logits, dim=1)}

    def _given(self, frame: int, start: Tensor) -> Tensor | None:
        """Which objects start in ``frame``, bool [B, O].

        Where the frame is written anyway the device is not asked whether there are any.
        """
        given = start == frame
        if frame == 0 or self.policy.writes(frame):
            return given
        return given if not given.is_meta and bool(given.any()) else None

    def stream(self, *, usage: bool = False) -> VideoStream:
        """Segment frame by frame with the memory policy of inference; ``usage`` makes each step report it."""
        return VideoStream(self, self.config.inference_policy, usage=usage)

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The size at which pictures of ``height`` x ``width`` pixels run: the next multiples of the total stride."""
        stride = self.config.stride
        return -(-height // stride) * stride, -(-width // stride) * stride

    def padded(self, x: Tensor) -> Tensor:
        """[B, C, H, W] with zeros at the right and at the bottom, up to `padded_size`."""
        height, width = self.padded_size(x.shape[-2], x.shape[-1])
        below, right = height - x.shape[-2], width - x.shape[-1]
        return F.pad(x, (0, right, 0, below)) if below or right else x

    def load_backbone(self, state: Mapping[str, Any]) -> None:
        """Start the backbone from a published checkpoint; the decoder keeps its weights.

        The decoder of the published descendant, which fuses and narrows the coarsest feature first, is another one: it
        cannot be loaded, and is dropped with the rest that `ConvMAEMemoryBackbone.from_reference` names.

        Args:
            state: of the memory backbone or the descendant (`ConvMAEMemoryBackbone.from_reference`), or of the ConvMAE
                encoder alone (`ConvMAEMemoryBackbone.from_convmae_encoder`); told apart by the embedding of the memory.

        Raises:
            ValueError: a key is missing, superfluous, or of another shape; the message names it.
        """
        options = {field.name: getattr(self.config, field.name) for field in fields(ConvMAEMemoryConfig)}
        of_memory = any("patch_embed1_memory." in key for key in unwrap_keys(state))
        # The random state is left alone, so that the decoder's initial weights do not depend on what is loaded.
        with torch.random.fork_rng(devices=[]):
            load = ConvMAEMemoryBackbone.from_reference if of_memory else ConvMAEMemoryBackbone.from_convmae_encoder
            self.convmae.load_state_dict(load(state, **options).state_dict())

    def pretrained_parts(self) -> list[dict[str, Any]]:
        """What was trained elsewhere: the backbone, where it started from a file."""
        if not self.config.backbone_weights:
            return []
        return [
            {
                "name": "convmae",
                "source": Path(self.config.backbone_weights).name,
                "sha256": self.backbone_sha256,
                "frozen": False,
                "parameters": sum(weight.numel() for weight in self.convmae.parameters()),
            }
        ]

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """FLOPs of a forward pass in the mode, training or not, that the model is in: 2 per multiply-add.

        Counts matrix products, convolutions and attention, and reads shapes only: objects that start behind frame 0 cost
        more only where the policy would not have written their frame.

        Args:
            batch: ``frames`` [B, F, 3, H, W] and ``first_masks`` [B, O, H, W].
        """
        samples, frames, _, *shape = batch["frames"].shape
        height, width = self.padded_size(*shape)
        objects, policy = batch["first_masks"].shape[1], self.policy
        written = sum(policy.writes(frame) for frame in range(frames - 1))
        flops = written * self.convmae.flops_write(height, width, objects)
        for frame in range(1, frames):
            flops += self._read_flops(height, width, policy.frames_read(frame), objects, policy.needs_usage)
        return samples * flops

    def flops_frame(self, height: int, width: int, frames: int, objects: int, *, usage: bool = False) -> int:
        """FLOPs of one step of one clip's stream, likewise.

        The frame before is written, and this one read with T = ``frames`` memory frames and decoded. ``usage``: the stream
        reports it; where eviction needs it, it is made anyway.
        """
        height, width = self.padded_size(height, width)
        write = self.convmae.flops_write(height, width, objects)
        usage = usage or self.config.inference_policy.needs_usage
        return write + self._read_flops(height, width, frames, objects, usage)

    def _read_flops(self, height: int, width: int, frames: int, objects: int, usage: bool) -> int:
        first, second, _ = self.config.strides
        fine = (height // first, width // first)
        decode = self.decoder.flops(fine[0] // second, fine[1] // second, *fine, objects)
        read = self.convmae.flops_read(height, width, frames, objects, usage=usage)
        return self.convmae.flops_query(height, width) + read + decode

    def memory_bytes(self, height: int, width: int, frames: int, objects: int, bytes_per_number: int = 4) -> int:
        """Bytes of keys and values of ``frames`` memory frames of one clip."""
        height, width = self.padded_size(height, width)
        tokens = height * width // self.config.stride**2
        return 2 * self.config.layers[2] * tokens * self.config.widths[2] * frames * objects * bytes_per_number
