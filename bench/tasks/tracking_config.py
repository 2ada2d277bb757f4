"""Options of the task ``tracking`` and its presets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from bench.data.video.spec import ClipOptions
from bench.errors import UserError
from bench.tasks.options import is_count, is_number
from bench.tasks.video_config import SMALL, VideoConfig

IOU_LOSSES = ("ciou", "giou")
SMALLEST = {"update_interval": 0, "search_size": 16, "template_size": 16}
"""Of options that count something; 1 for others."""


@dataclass(frozen=True)
class TrackingConfig(VideoConfig):
    """Options of the task; every field is one key under ``task:`` in a comparison."""

    known_data = ("embedded", "got10k", "lasot")
    only_of: ClassVar = {
        **dict.fromkeys((field.name for field in fields(ClipOptions)), ("embedded",)),
        "leave_out": ("got10k", "lasot"),
        "first_pixel": ("lasot",),
    }

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

    def _check_own(self) -> None:
        if self.iou_loss not in IOU_LOSSES:
            raise UserError(f"task.iou_loss must be one of {', '.join(IOU_LOSSES)}, got {self.iou_loss!r}")
        for name in ("search_size", "template_size", "max_gap", "update_interval", "eval_batch"):
            value, smallest = getattr(self, name), SMALLEST.get(name, 1)
            if not is_count(value, smallest):
                raise UserError(f"task.{name} must be a whole number of at least {smallest}, got {value!r}")
        for name in ("search_factor", "evaluation_factor", "template_factor", "centre_jitter", "scale_jitter"):
            value, smallest = getattr(self, name), 0 if name.endswith("jitter") else 1
            if (value is not None or name != "evaluation_factor") and not (
                is_number(value) and smallest <= value <= 16
            ):
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

    def _check_files(self) -> None:
        if self.first_pixel not in (0, 1):
            raise UserError(f"task.first_pixel must be 0 or 1, got {self.first_pixel!r}")
        super()._check_files()

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
