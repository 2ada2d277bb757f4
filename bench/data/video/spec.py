"""What a set of generated clips is made of: sizes, splits, factors and seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.data.draws import Salt, of_name, stream
from bench.errors import UserError

VIDEO_VERSION = 1
"""Stored in every manifest and mixed into every seed; bumped whenever a change of the generator moves a pixel."""

SPLITS = ("train", "validation", "test", "shifted")
"""The textures of `shifted` are of kinds that occur in no other split."""

SEEDS_PER_SPLIT = 1_000_000_000
"""Split number s owns the clip seeds [s * SEEDS_PER_SPLIT, (s + 1) * SEEDS_PER_SPLIT): the ranges never meet."""

CLIPS_PER_SHARD = 25

HARD = ("distractors", "occlusion", "drift")
"""Factors that a training clip may have together."""

FACTORS = ("plain", *HARD, "static")
"""`plain` has none of the hard ones; `static` is a control in which memory cannot help: a still background and targets that
nothing ever hides."""

MIXED = 0.4
"""Probability of each hard factor in a training clip."""


@dataclass(frozen=True)
class ClipOptions:
    """What generated clips look like; the options of the video tasks that only their embedded data have are these."""

    image_size: int = 64
    """Height and width in pixels."""
    objects: int = 2
    """Objects of a clip, the largest of which is the target of `tracking`."""
    frames: int = 10
    """Frames of a clip."""
    factors: tuple[str, ...] = FACTORS
    """Names of `FACTORS`. Validation, test and shifted clips have exactly one each, in turn; a training clip mixes them."""
    distractors: int = 2
    """Look-alikes in a clip with distractors: the palette of a target, another pattern and outline."""
    occlusion_frames: int = 2
    """Frames for which a clip with occlusion hides its largest target wholly."""
    drift_rate: float = 1.0
    """How far the targets' colours, brightness and outline go within a clip with drift; 0: nowhere."""
    late_objects: float = 0.0
    """Share of the clips whose last target enters in the middle; needs two objects."""
    jpeg_quality: int = 0
    """1..95: frames pass through JPEG of this quality; 0: not at all, as a lossless file would keep them."""


@dataclass(frozen=True)
class VideoSpec(ClipOptions):
    """Everything that determines the pixels. Equal specs give equal bytes."""

    train_clips: int = 600
    validation_clips: int = 60
    test_clips: int = 100
    shifted_clips: int = 40
    seed: int = 0
    """Another seed gives other clips of the same kind."""

    def __post_init__(self) -> None:
        """Raise `UserError` on the first field that is out of range."""
        limits = {
            "image_size": (32, 1024),
            "frames": (4, 1000),
            "objects": (1, 4),
            "distractors": (1, 8),
            "occlusion_frames": (1, 1000),
            "jpeg_quality": (0, 95),
            "seed": (0, 2**32 - 1),
        }
        limits |= {f"{split}_clips": (1, SEEDS_PER_SPLIT) for split in SPLITS}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise UserError(f"video.{name} must be a whole number from {low} to {high}, got {value!r}")
        for name, most in (("drift_rate", 2.0), ("late_objects", 1.0)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= most:
                raise UserError(f"video.{name} must be a number from 0 to {most:g}, got {value!r}")
            object.__setattr__(self, name, float(value))  # 1 and 1.0 are one spec
        object.__setattr__(self, "factors", tuple(self.factors))
        if not self.factors or len(set(self.factors)) < len(self.factors) or not set(self.factors) <= set(FACTORS):
            raise UserError(f"video.factors must be different names of {', '.join(FACTORS)}, got {self.factors!r}")
        if self.late_objects and self.objects < 2:
            raise UserError("video.late_objects needs objects >= 2: the first target is there from the start")
        if "occlusion" in self.factors and self.occlusion_frames > self.frames - 6:
            raise UserError(
                f"video.occlusion_frames must be at most frames - 6 = {self.frames - 6}, got {self.occlusion_frames}: "
                "the bar needs three frames to come and three to go"
            )

    def clips(self, split: str) -> int:
        """Number of clips in `split`."""
        return int(getattr(self, f"{check_split(split)}_clips"))

    def describe(self, split: str) -> dict[str, Any]:
        """The part of the spec that determines the bytes of `split`, and nothing else.

        A change of `test_clips` therefore leaves cached training clips valid.
        """
        common = {name: value for name, value in asdict(self).items() if not name.endswith("_clips")}
        start = SPLITS.index(check_split(split)) * SEEDS_PER_SPLIT
        return common | {
            "factors": list(self.factors),
            "version": VIDEO_VERSION,
            "split": split,
            "clips": self.clips(split),
            "clips_per_shard": CLIPS_PER_SHARD,
            "seeds": [start, start + self.clips(split)],
        }

    def draw(self, split: str, clip: int) -> np.uint64:
        """The one source of randomness of a clip: a function of version, seed, split and number alone."""
        if not 0 <= clip < self.clips(split):
            raise IndexError(f"clip {clip} is not in {split}, which has {self.clips(split)} clips")
        number = SPLITS.index(split) * SEEDS_PER_SPLIT + clip
        return of_name(f"video/{VIDEO_VERSION}/{self.seed}/{number}")

    def clip_factors(self, split: str, clip: int) -> tuple[str, ...]:
        """What is hard about a clip: one factor in turn, in training any of the hard ones together."""
        if split != "train":
            return (self.factors[clip % len(self.factors)],)
        chances = stream(np.array([self.draw(split, clip)]), Salt.VIDEO_LAYOUT, len(HARD))[0] >> np.uint64(11)
        mixed = tuple(
            name
            for name, chance in zip(HARD, chances, strict=True)
            if name in self.factors and int(chance) * 2.0**-53 < MIXED
        )
        easy = tuple(name for name in self.factors if name not in HARD)
        return mixed or ((easy or self.factors)[clip % len(easy or self.factors)],)


def check_split(split: str) -> str:
    """Return `split`, or raise `UserError` if there is no such split."""
    if split not in SPLITS:
        raise UserError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return split


def shard_ranges(spec: VideoSpec, split: str) -> list[range]:
    """Clip numbers of each shard of `split`."""
    clips = spec.clips(split)
    return [range(start, min(start + CLIPS_PER_SHARD, clips)) for start in range(0, clips, CLIPS_PER_SHARD)]
