"""Options of the task ``vos`` and its presets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from bench.data.video.spec import FACTORS, VideoSpec
from bench.errors import UserError

DATA = ("embedded", "davis", "davis-2016", "youtube-vos", "images")

OF_SOME = {
    **dict.fromkeys(
        ("frames", "factors", "distractors", "occlusion_frames", "drift_rate", "late_objects", "jpeg_quality"),
        ("embedded",),
    ),
    "shifted_clips": ("embedded",),
    **dict.fromkeys(("eval_size", "patch_multiple", "leave_out"), DATA[1:]),
    "resolution": ("davis", "davis-2016"),
    "all_frames": ("youtube-vos",),
    "mask_threshold": ("images",),
}
"""Options -> the only data that have them."""

SMALL: dict[str, Any] = {"frames": 24, "occlusion_frames": 5}
"""What the preset ``small`` says of embedded clips alone; no mistake where the data are others."""

ANNOTATED_EVERY = {"youtube-vos": 5}
"""Data -> frames from one with masks to the next, where not all have them."""

REAL_FRAMES = 24
"""Frames of the clip that inference is timed on, where clips have no length in common."""


@dataclass(frozen=True)
class VOSConfig:
    """Options of the task; every field is one key under ``task:`` in a comparison."""

    data: str = "embedded"
    """``embedded`` (clips that are rendered on first use), or files under `data_path`: ``davis`` (2017), ``davis-2016`` (all objects
    as one), ``youtube-vos``, or ``images`` (still images with masks, warped into clips)."""
    data_path: str | None = None
    """Folder of the data, unless they are embedded."""
    image_size: int = 64
    """Height and width in pixels of training samples, and of embedded clips."""
    clip_frames: int = 4
    """Frames of a training sample; the first one is given."""
    max_gap: int = 2
    """Most frames from one of a training sample to the next: each gap is drawn from 1 to this. ``youtube-vos`` has masks in every 5th
    frame: there it is drawn from 1 to a fifth of this, at least 1, and counts frames with masks."""
    objects: int = 2
    """Objects of a training sample at most, and of an embedded clip."""
    frames: int = 10
    """``embedded`` only: frames of a clip."""
    factors: tuple[str, ...] = FACTORS
    """``embedded`` only: what makes clips hard, one factor an evaluated clip in turn; each is scored apart too."""
    distractors: int = 2
    """``embedded`` only: look-alikes in a clip with distractors."""
    occlusion_frames: int = 2
    """``embedded`` only: frames for which a clip with occlusion hides its largest target wholly."""
    drift_rate: float = 1.0
    """``embedded`` only: how far looks change within a clip with drift; 0: nowhere."""
    late_objects: float = 0.0
    """``embedded`` only: share of the clips whose last target enters in the middle."""
    jpeg_quality: int = 0
    """``embedded`` only: 1..95: frames pass through JPEG of this quality; 0: not at all."""
    train_clips: int | None = 600
    """Clips of the split: so many are rendered; of real video at most so many, the first ones; null: all there are (real video
    only)."""
    validation_clips: int | None = 60
    test_clips: int | None = 100
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

    def __post_init__(self) -> None:
        """Raise `UserError` on the first field that is out of range."""
        if self.data not in DATA:
            raise UserError(f"task.data must be one of {', '.join(DATA)}, got {self.data!r}")
        for name in ("factors", "leave_out"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("image_size", "clip_frames", "max_gap", "objects", "eval_batch", "eval_size", "patch_multiple"):
            smallest = {"clip_frames": 2, "image_size": 16, "eval_size": 16}.get(name, 1)
            if not _is_count(getattr(self, name), smallest):
                raise UserError(
                    f"task.{name} must be a whole number of at least {smallest}, got {getattr(self, name)!r}"
                )
        if self.objects > 254:
            raise UserError(f"task.objects must be at most 254, as masks are bytes, got {self.objects}")
        self._check_owners()
        self._check_embedded() if self.embedded else self._check_real()
        for name in ("ce_start", "ce_end", "ce_fraction"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise UserError(f"task.{name} must be a number from 0 to 1, got {value!r}")
        if self.ce_start > self.ce_end:
            raise UserError(f"task.ce_end must not lie before task.ce_start, {self.ce_start}, got {self.ce_end}")
        if self.ce_fraction == 0:
            raise UserError("task.ce_fraction must be above 0: no pixel would be learned from; 1 keeps all")

    def _check_owners(self) -> None:
        """Nothing is said of what the data do not have; defaults and presets are there in any case."""
        for name, owners in OF_SOME.items():
            default = type(self).__dataclass_fields__[name].default
            if self.data not in owners and getattr(self, name) not in (default, SMALL.get(name, default)):
                raise UserError(
                    f"task.{name} is an option of {', '.join(owners)} alone, but task.data is {self.data}; leave it out"
                )

    def _check_embedded(self) -> None:
        if self.data_path is not None:
            raise UserError(
                f"task.data_path is {self.data_path!r}, but task.data: embedded renders its own; set task.data to "
                f"{', '.join(DATA[1:-1])} or {DATA[-1]}"
            )
        for name in ("train_clips", "validation_clips", "test_clips"):
            if getattr(self, name) is None:
                raise UserError(f"task.{name} must be a whole number: task.data: embedded has no end")
        if not _is_count(self.shifted_clips, 0):
            raise UserError(f"task.shifted_clips must be a whole number, got {self.shifted_clips!r}")
        try:
            spec = self.video_spec
        except UserError as error:
            raise UserError(str(error).replace("video.", "task.", 1)) from None
        if self.clip_frames > spec.frames:
            raise UserError(f"task.clip_frames must be at most task.frames, {self.frames}, got {self.clip_frames}")

    def _check_real(self) -> None:
        if self.mask_threshold is not None and not (_is_count(self.mask_threshold, 1) and self.mask_threshold <= 255):
            raise UserError(
                f"task.mask_threshold must be a whole number from 1 to 255, or null, got {self.mask_threshold!r}"
            )
        if self.data_path == "":
            raise UserError("task.data_path is empty: give a folder, or null for none")
        for name in ("train_clips", "validation_clips", "test_clips"):
            value = getattr(self, name)
            if value is not None and not _is_count(value, 1):
                raise UserError(f"task.{name} must be a whole number of at least 1, or null for all, got {value!r}")
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
    def embedded(self) -> bool:
        """Whether clips are rendered: all of one size and length, and nothing is resized."""
        return self.data == "embedded"

    @property
    def video_spec(self) -> VideoSpec:
        """The rendered clips that these options need."""
        ours = {field.name for field in fields(self)}
        given = {field.name: getattr(self, field.name) for field in fields(VideoSpec) if field.name in ours}
        return VideoSpec(**given | {"shifted_clips": self.shifted_clips or 1})

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

    def clip_limit(self, split: str) -> int | None:
        """Most clips of a split, None for all of them and for splits without an option."""
        limit: int | None = getattr(self, f"{split}_clips", None)
        return limit


def _is_count(value: Any, smallest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= smallest


PRESETS: dict[str, VOSConfig] = {
    # All pixels to the end: in a few hundred steps from scratch the hardest ones alone teach nothing (J 17 instead of 60 to 82).
    "tiny": VOSConfig(ce_start=1.0, ce_end=1.0),
    "small": VOSConfig(image_size=128, clip_frames=6, max_gap=3, train_clips=2000, **SMALL),
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
