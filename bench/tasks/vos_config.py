"""Options of the task ``vos`` and its presets."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from bench.data.video.spec import ClipOptions, VideoSpec
from bench.errors import UserError
from bench.tasks.options import is_count, is_number
from bench.tasks.video_config import SMALL, VideoConfig

FILES = ("davis", "davis-2016", "youtube-vos", "images")

ANNOTATED_EVERY = {"youtube-vos": 5}
"""Data -> frames from one with masks to the next, where not all have them."""

REAL_FRAMES = 24
"""Frames of the clip that inference is timed on, where clips have no length in common."""


@dataclass(frozen=True)
class VOSConfig(VideoConfig):
    """Options of the task; every field is one key under ``task:`` in a comparison.

    Of `data`, ``davis`` is DAVIS 2017, ``davis-2016`` has all objects as one, ``images`` are still images with masks, warped into
    clips. `image_size` is that of training samples of any data, `objects` the most that they have.
    """

    known_data = ("embedded", *FILES)
    only_of: ClassVar = {
        **{field.name: ("embedded",) for field in fields(ClipOptions) if field.name not in ("image_size", "objects")},
        "shifted_clips": ("embedded",),
        **dict.fromkeys(("eval_size", "patch_multiple", "leave_out"), FILES),
        "resolution": ("davis", "davis-2016"),
        "all_frames": ("youtube-vos",),
        "mask_threshold": ("images",),
    }

    clip_frames: int = 4
    """Frames of a training sample; the first one is given."""
    max_gap: int = 2
    """Most frames from one of a training sample to the next: each gap is drawn from 1 to this. ``youtube-vos`` has masks in every 5th
    frame: there it is drawn from 1 to a fifth of this, at least 1, and counts frames with masks."""
    shifted_clips: int = 40
    """``embedded`` only: clips with patterns of kinds that occur in no other split; the final evaluation tells J of them too. 0: none."""
    eval_batch: int = 10
    """Clips in one evaluation batch: fixed, so that an arm's score does not depend on its memory. Real video goes clip by clip."""
    eval_size: int = 480
    """Real video only: shorter side in pixels at which clips are evaluated; masks are scored in their original size."""
    patch_multiple: int = 16
    """Real video only: evaluated frames are padded to a multiple of this; divides `image_size`."""
    leave_out: tuple[str, ...] = ()
    """Files only: names of videos or images that are left out."""
    resolution: str = "480p"
    """``davis`` and ``davis-2016`` only: which of its resolutions is read, the name of a folder."""
    all_frames: bool = False
    """``youtube-vos`` only: read the folders with every frame, of which every fifth has masks."""
    mask_threshold: int | None = None
    """``images`` only: 1..255: masks are grey, and an object from this value on; null: masks hold object numbers, or black and white."""
    ce_start: float = 0.1
    """Share of the budget up to which the cross-entropy is of all pixels; from there on of fewer and fewer, the hardest ones."""
    ce_end: float = 0.4
    """Share of the budget from which on it is of the hardest `ce_fraction` of the pixels."""
    ce_fraction: float = 0.15

    def _check_own(self) -> None:
        object.__setattr__(self, "leave_out", tuple(self.leave_out))
        for name in ("image_size", "clip_frames", "max_gap", "objects", "eval_batch", "eval_size", "patch_multiple"):
            smallest = {"clip_frames": 2, "image_size": 16, "eval_size": 16}.get(name, 1)
            if not is_count(getattr(self, name), smallest):
                raise UserError(
                    f"task.{name} must be a whole number of at least {smallest}, got {getattr(self, name)!r}"
                )
        if self.objects > 254:
            raise UserError(f"task.objects must be at most 254, as masks are bytes, got {self.objects}")
        for name in ("ce_start", "ce_end", "ce_fraction"):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value <= 1:
                raise UserError(f"task.{name} must be a number from 0 to 1, got {value!r}")
        if self.ce_start > self.ce_end:
            raise UserError(f"task.ce_end must not lie before task.ce_start, {self.ce_start}, got {self.ce_end}")
        if self.ce_fraction == 0:
            raise UserError("task.ce_fraction must be above 0: no pixel would be learned from; 1 keeps all")

    def _check_embedded(self) -> None:
        if not is_count(self.shifted_clips, 0):
            raise UserError(f"task.shifted_clips must be a whole number, got {self.shifted_clips!r}")
        super()._check_embedded()
        if self.clip_frames > self.frames:
            raise UserError(f"task.clip_frames must be at most task.frames, {self.frames}, got {self.clip_frames}")

    def _check_files(self) -> None:
        if self.mask_threshold is not None and not (is_count(self.mask_threshold, 1) and self.mask_threshold <= 255):
            raise UserError(
                f"task.mask_threshold must be a whole number from 1 to 255, or null, got {self.mask_threshold!r}"
            )
        super()._check_files()
        if self.image_size % self.patch_multiple:
            raise UserError(
                f"task.patch_multiple must divide task.image_size, {self.image_size}, got {self.patch_multiple}: choose another"
            )

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that are prepared."""
        shifted = ("shifted",) if self.embedded and self.shifted_clips else ()
        return ("train", "validation", "test", *shifted)

    @property
    def video_spec(self) -> VideoSpec:
        """The rendered clips that these options need."""
        spec = super().video_spec
        return replace(spec, shifted_clips=self.shifted_clips) if self.shifted_clips else spec

    @property
    def annotated_gap(self) -> int:
        """`max_gap` in frames with masks."""
        return max(1, self.max_gap // ANNOTATED_EVERY.get(self.data, 1))

    @property
    def evaluation_frames(self) -> int:
        """Frames of the clip that inference is timed on: of embedded data those of every evaluated clip."""
        return self.frames if self.embedded else REAL_FRAMES

    def shared_options(self) -> dict[str, Any]:
        """What an architecture must be built for."""
        return {"image_size": self.image_size}


PRESETS: dict[str, VOSConfig] = {
    # All pixels to the end: in a few hundred steps from scratch the hardest ones alone teach nothing (J 17 instead of 60 to 82).
    "tiny": VOSConfig(ce_start=1.0, ce_end=1.0),
    "small": VOSConfig(**SMALL, clip_frames=6, max_gap=3, train_clips=2000),
    "paper": VOSConfig(
        data="davis",
        image_size=384,
        clip_frames=4,
        max_gap=10,
        objects=3,
        train_clips=None,
        validation_clips=None,
        test_clips=None,
    ),
}
"""``tiny``: two cores, minutes. ``small``: one GPU, minutes. ``paper``: sizes and frames of the published training on a folder of
DAVIS, which must be given (`data_path`); 15 frames of gap at the widest of its curriculum, 10 here throughout."""
