"""Options of the task ``tracking`` and its presets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from bench.data.video.spec import FACTORS, VideoSpec
from bench.errors import UserError

DATA = ("embedded", "got10k", "lasot")
IOU_LOSSES = ("ciou", "giou")

OF_EMBEDDED = (
    "image_size",
    "objects",
    "frames",
    "factors",
    "distractors",
    "occlusion_frames",
    "drift_rate",
    "late_objects",
    "jpeg_quality",
)
"""Options that only generated clips have, those of the task ``vos``; what they mean stands in `VideoSpec`."""
OF_FILES = {"leave_out": ("got10k", "lasot"), "first_pixel": ("lasot",)}
"""Options of files -> the only data that have them."""
SMALL: dict[str, Any] = {"image_size": 128, "frames": 24, "occlusion_frames": 5}
"""What the preset ``small`` says of embedded clips alone; no mistake where the data are others."""
CLIPS = ("train_clips", "validation_clips", "test_clips")
SMALLEST = {"update_interval": 0, "search_size": 16, "template_size": 16}
"""Of options that count something; 1 for others."""


@dataclass(frozen=True)
class TrackingConfig:
    """Options of the task; every field is one key under ``task:`` in a comparison."""

    data: str = "embedded"
    """``embedded`` (generated clips, made on first use), or files under `data_path`: ``got10k``, ``lasot``."""
    data_path: str | None = None
    """Folder of the data, unless it is embedded; see ``docs/bring-your-data.md``."""
    image_size: int = 64
    """``embedded`` only: height and width of clips in pixels."""
    objects: int = 2
    """``embedded`` only: objects of a clip, the largest of which is its target."""
    frames: int = 10
    """``embedded`` only: frames of a clip."""
    factors: tuple[str, ...] = FACTORS
    """``embedded`` only: what makes clips hard, one factor an evaluated clip in turn; each is scored apart too."""
    distractors: int = 2
    """``embedded`` only: look-alikes in a clip with distractors."""
    occlusion_frames: int = 2
    """``embedded`` only: frames for which a clip with occlusion hides its target wholly."""
    drift_rate: float = 1.0
    """``embedded`` only: how far looks change within a clip with drift; 0: nowhere."""
    late_objects: float = 0.0
    """``embedded`` only: share of the clips whose last object enters in the middle."""
    jpeg_quality: int = 0
    """``embedded`` only: 1..95: frames pass through JPEG of this quality; 0: not at all."""
    train_clips: int | None = 600
    """Clips of the split: so many are generated; of files at most so many; null: all there are (files only)."""
    validation_clips: int | None = 60
    test_clips: int | None = 100
    leave_out: tuple[str, ...] | None = None
    """Files only: names of videos that are left out; null: those that are known to be broken (``got10k``)."""
    first_pixel: int = 1
    """``lasot`` only: what the boxes in its files count the first pixel as; 0 in the extension of 150 videos."""
    search_size: int = 96
    """Height and width in pixels of the search crop as architectures get it."""
    template_size: int = 32
    """Height and width of both template crops."""
    search_factor: float = 3.0
    """Side of the search crop over the root of the box's area: how far the target may have gone."""
    evaluation_factor: float | None = None
    """The same where clips are followed; null: `search_factor`."""
    template_factor: float = 2.0
    """Side of the template crops over the root of the box's area."""
    centre_jitter: float = 1.0
    """In training the search crop's middle misses the target's by up to half of this along each axis, in roots of its area."""
    scale_jitter: float = 0.25
    """In training the sides of the box that the search crop follows are multiplied by e^(this z), z normal."""
    max_gap: int = 200
    """Frames between a training sample's search crop and its templates, at most."""
    update_interval: int = 5
    """Frames after which the online template is cut out anew about the predicted box; 0: it stays that of the first frame."""
    iou_loss: str = "ciou"
    """``ciou`` (what the published code does) or ``giou`` (what the paper says)."""
    exclude_absent: bool = False
    """Leave frames where the target is not to be seen out of AUC and precision, instead of counting them as failures."""
    eval_batch: int = 20
    """Clips followed side by side: fixed, so that an arm's score does not depend on its memory."""

    def __post_init__(self) -> None:
        """Raise `UserError` on the first field that is out of range."""
        object.__setattr__(self, "factors", tuple(self.factors))
        for name, known in (("data", DATA), ("iou_loss", IOU_LOSSES)):
            if getattr(self, name) not in known:
                raise UserError(f"task.{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name in ("search_size", "template_size", "max_gap", "update_interval", "eval_batch"):
            value, smallest = getattr(self, name), SMALLEST.get(name, 1)
            if not _is_count(value, smallest):
                raise UserError(f"task.{name} must be a whole number of at least {smallest}, got {value!r}")
        for name in ("search_factor", "evaluation_factor", "template_factor", "centre_jitter", "scale_jitter"):
            value, smallest = getattr(self, name), 0 if name.endswith("jitter") else 1
            if (value is not None or name != "evaluation_factor") and not _is_number(value, smallest, 16):
                raise UserError(f"task.{name} must be a number from {smallest} to 16, got {value!r}")
        if not isinstance(self.exclude_absent, bool):
            raise UserError(f"task.exclude_absent must be true or false, got {self.exclude_absent!r}")
        if self.centre_jitter > self.search_factor:
            raise UserError(
                f"task.centre_jitter must be at most task.search_factor, {self.search_factor:g}, got {self.centre_jitter:g}: "
                f"the target's middle would lie outside of the search crop"
            )
        if self.leave_out is not None:
            object.__setattr__(self, "leave_out", tuple(self.leave_out))
        self._check_owners()
        self._check_embedded() if self.data == "embedded" else self._check_files()

    def _check_owners(self) -> None:
        """Nothing is said of what the data do not have; defaults and presets are there in any case."""
        for name, owners in {**dict.fromkeys(OF_EMBEDDED, ("embedded",)), **OF_FILES}.items():
            default = type(self).__dataclass_fields__[name].default
            if self.data not in owners and getattr(self, name) not in (default, SMALL.get(name, default)):
                raise UserError(
                    f"task.{name} is an option of {', '.join(owners)} alone, but task.data is {self.data}; leave it out"
                )

    def _check_embedded(self) -> None:
        if self.data_path is not None:
            raise UserError(
                f"task.data_path is {self.data_path!r}, but task.data: embedded makes its own; set task.data to "
                f"{' or '.join(DATA[1:])}"
            )
        for name in CLIPS:
            if getattr(self, name) is None:
                raise UserError(f"task.{name} must be a whole number: task.data: embedded has no end")
        try:
            self.video_spec  # noqa: B018 (checks what it is given)
        except UserError as error:
            raise UserError(str(error).replace("video.", "task.", 1)) from None

    def _check_files(self) -> None:
        if self.first_pixel not in (0, 1):
            raise UserError(f"task.first_pixel must be 0 or 1, got {self.first_pixel!r}")
        if self.data_path == "":
            raise UserError("task.data_path is empty: give the folder of the data")
        for name in CLIPS:
            value = getattr(self, name)
            if value is not None and not _is_count(value, 1):
                raise UserError(f"task.{name} must be a whole number of at least 1, or null for all, got {value!r}")

    @property
    def video_spec(self) -> VideoSpec:
        """The generated clips that these options need."""
        ours = {field.name for field in fields(self)}
        return VideoSpec(**{field.name: getattr(self, field.name) for field in fields(VideoSpec) if field.name in ours})

    @property
    def followed_factor(self) -> float:
        """Factor of the search crop where clips are followed."""
        return self.search_factor if self.evaluation_factor is None else self.evaluation_factor

    def crop_size(self, name: str) -> int:
        """Height and width in pixels of ``search``, or of a template."""
        return self.search_size if name == "search" else self.template_size

    def shared_options(self) -> dict[str, Any]:
        """Options that the task's architectures have too, under the same name: these must be equal."""
        return {"search_size": self.search_size, "template_size": self.template_size}

    def clip_limit(self, split: str) -> int | None:
        """Most clips of a split, None for all of them and for splits without an option."""
        limit: int | None = getattr(self, f"{split}_clips", None)
        return limit


def _is_count(value: Any, smallest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= smallest


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


PRESETS: dict[str, TrackingConfig] = {
    "tiny": TrackingConfig(),
    "small": TrackingConfig(
        **SMALL,
        train_clips=2000,
        search_size=192,
        template_size=64,
        update_interval=10,
    ),
    "paper": TrackingConfig(
        data="got10k",
        train_clips=None,
        validation_clips=None,
        test_clips=None,
        search_size=320,
        template_size=128,
        search_factor=5.0,
        evaluation_factor=4.55,
        centre_jitter=4.5,
        scale_jitter=0.5,
        update_interval=10,
        eval_batch=1,
    ),
}
"""``tiny``: two cores, minutes. Targets are about 25 of 64 pixels wide and move by 5 a frame, so that a search crop of 3 box sides
reaches far enough; at 96 pixels it is enlarged, not reduced, and a trunk of stride 16 has a map of 6 x 6 to point at corners on,
whose last place lies at 5/6 of the crop: just where the jitter takes a target's far corner. ``small``: one GPU, minutes; the clips
of ``vos`` at `small`. ``paper``: sizes and factors as published, on GOT-10k, which must be given (`data_path`)."""
