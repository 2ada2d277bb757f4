"""Where the task ``vos`` gets its clips from: rendered ones, or files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.data import video
from bench.errors import UserError
from bench.tasks.vos_batches import CROP_SCALE

if TYPE_CHECKING:
    from bench.data.cache_folder import Progress
    from bench.data.video.clips import MaskedVideos
    from bench.tasks.vos_config import VOSConfig

PSEUDO_FRAMES = 8
"""Frames of an evaluated clip that is made of one image."""


def render(config: VOSConfig, cache_dir: Path, report: Progress | None = None) -> None:
    """Render what is missing of the embedded clips."""
    video.prepare(config.video_spec, cache_dir, progress=report, splits=config.splits)


def open_clips(config: VOSConfig, split: str, cache_dir: Path, report: Progress | None = None) -> MaskedVideos:
    """``train``, ``validation`` or ``test``, and what else the data have; of real ones as many clips as the options allow.

    Raises:
        UserError: the data is not there.
    """
    if config.embedded:
        return video.open_masked(config.video_spec, split, cache_dir, verify=False)
    if config.data_path is None:
        raise UserError(f"task.data_path is not set: give the folder of {config.data}, or set task.data: embedded")
    root = Path(config.data_path).expanduser()
    if not root.is_dir():
        raise UserError(f"task.data_path: {root} is no folder; it must hold {config.data}")
    common: dict[str, Any] = {"limit": config.clip_limit(split), "leave_out": config.leave_out}
    # Where training shares the cores with decoding, no more threads than the comparison was given.
    threads: dict[str, Any] = {
        "workers": None if torch.cuda.is_available() else torch.get_num_threads(),
        "report": report,
    }
    if config.data == "youtube-vos":
        from bench.data.youtube_vos import open_youtube_vos

        return open_youtube_vos(root, split, all_frames=config.all_frames, **threads, **common)
    if config.data == "images":
        from bench.data.pseudo_video import PseudoVideos, open_static_images

        images = open_static_images(root, split, threshold=config.mask_threshold, **common)
        if split != "train":
            return PseudoVideos(images, PSEUDO_FRAMES, config.eval_size)
        # As large as the smallest crop of it needs to be.
        return PseudoVideos(images, config.clip_frames, round(config.image_size / CROP_SCALE[0] ** 0.5))
    from bench.data.davis import open_davis

    year = 2016 if config.data == "davis-2016" else 2017
    return open_davis(root, split, year=year, resolution=config.resolution, **threads, **common)
