"""Options that the tasks ``vos`` and ``tracking`` have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from bench.data.video.spec import ClipOptions, VideoSpec
from bench.errors import UserError
from bench.tasks.options import is_count

SMALL: dict[str, Any] = {"image_size": 128, "frames": 24, "occlusion_frames": 5}
"""What the presets ``small`` say of embedded clips; no mistake where the data are others."""
CLIPS = ("train_clips", "validation_clips", "test_clips")


@dataclass(frozen=True)
class VideoConfig(ClipOptions):
    """Options of either task; every field is one key under ``task:`` in a comparison. Those of `ClipOptions` are of ``embedded``."""

    known_data: ClassVar[tuple[str, ...]]
    """What `data` may be, ``embedded`` first."""
    only_of: ClassVar[Mapping[str, tuple[str, ...]]]
    """Options -> the only data that have them."""

    data: str = "embedded"
    """``embedded`` (clips that are rendered on first use), or files under `data_path`."""
    data_path: str | None = None
    """Folder of the data, unless they are embedded; see ``docs/bring-your-data.md``."""
    train_clips: int | None = 600
    """Clips of the split: so many are rendered; of files at most so many, the first ones; null: all there are (files only)."""
    validation_clips: int | None = 60
    test_clips: int | None = 100

    def __post_init__(self) -> None:
        """Raise `UserError` on the first field that is out of range."""
        if self.data not in self.known_data:
            raise UserError(f"task.data must be one of {', '.join(self.known_data)}, got {self.data!r}")
        self._check_own()
        object.__setattr__(self, "factors", tuple(self.factors))
        for name, owners in self.only_of.items():
            default = type(self).__dataclass_fields__[name].default
            if self.data not in owners and getattr(self, name) not in (default, SMALL.get(name, default)):
                raise UserError(
                    f"task.{name} is an option of {', '.join(owners)} alone, but task.data is {self.data}; leave it out"
                )
        self._check_embedded() if self.embedded else self._check_files()

    def _check_own(self) -> None:
        """Raise `UserError` on the first option of the task itself that is out of range, whatever the data."""

    def _check_embedded(self) -> None:
        if self.data_path is not None:
            *others, last = self.known_data[1:]
            raise UserError(
                f"task.data_path is {self.data_path!r}, but task.data: embedded renders its own; set task.data to "
                f"{', '.join(others)} or {last}"
            )
        for name in CLIPS:
            if getattr(self, name) is None:
                raise UserError(f"task.{name} must be a whole number: task.data: embedded has no end")
        try:
            self.video_spec  # noqa: B018 (checks what it is given)
        except UserError as error:
            raise UserError(str(error).replace("video.", "task.", 1)) from None

    def _check_files(self) -> None:
        if self.data_path == "":
            raise UserError("task.data_path is empty: give a folder, or null for none")
        for name in CLIPS:
            value = getattr(self, name)
            if value is not None and not is_count(value, 1):
                raise UserError(f"task.{name} must be a whole number of at least 1, or null for all, got {value!r}")

    @property
    def embedded(self) -> bool:
        """Whether clips are rendered: all of one size and length, and nothing is resized."""
        return self.data == "embedded"

    @property
    def video_spec(self) -> VideoSpec:
        """The rendered clips that these options need."""
        names = (*(field.name for field in fields(ClipOptions)), *CLIPS)
        return VideoSpec(**{name: getattr(self, name) for name in names})

    def clip_limit(self, split: str) -> int | None:
        """Most clips of a split, None for all of them and for splits without an option."""
        limit: int | None = getattr(self, f"{split}_clips", None)
        return limit
