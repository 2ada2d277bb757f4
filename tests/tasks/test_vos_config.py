"""Options of the task ``vos``: what is refused, what files take, what reaches the clips."""

from __future__ import annotations

import dataclasses

import pytest

from bench.errors import UserError
from bench.tasks.vos import PRESETS, VOSConfig


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"data": "ytvos"}, "task.data must be one of embedded, davis, davis-2016, youtube-vos, images, got 'ytvos'"),
        (
            {"data_path": "there"},
            "task.data_path is 'there', but task.data: embedded renders its own; set task.data to davis, davis-2016",
        ),
        ({"data": "davis", "data_path": ""}, "task.data_path is empty: give a folder, or null for none"),
        ({"image_size": 8}, "task.image_size must be a whole number of at least 16, got 8"),
        ({"clip_frames": 1}, "task.clip_frames must be a whole number of at least 2, got 1"),
        ({"clip_frames": 11}, "task.clip_frames must be at most task.frames, 10, got 11"),
        ({"max_gap": 0}, "task.max_gap must be a whole number of at least 1, got 0"),
        ({"objects": 1.5}, "task.objects must be a whole number of at least 1, got 1.5"),
        ({"data": "davis", "objects": 255}, "task.objects must be at most 254, as masks are bytes, got 255"),
        ({"frames": 3}, "task.frames must be a whole number from 4 to 1000, got 3"),
        ({"factors": ("fog",)}, "task.factors must be different names of plain, distractors, occlusion, drift, static"),
        ({"train_clips": None}, "task.train_clips must be a whole number: task.data: embedded has no end"),
        (
            {"data": "davis", "test_clips": 0},
            "task.test_clips must be a whole number of at least 1, or null for all, got 0",
        ),
        ({"data": "davis", "image_size": 40}, "task.patch_multiple must divide task.image_size, 40, got 16"),
        ({"shifted_clips": -1}, "task.shifted_clips must be a whole number, got -1"),
        ({"eval_batch": True}, "task.eval_batch must be a whole number of at least 1, got True"),
        ({"ce_start": -0.1}, "task.ce_start must be a number from 0 to 1, got -0.1"),
        ({"ce_start": 0.5}, "task.ce_end must not lie before task.ce_start, 0.5, got 0.4"),
        ({"ce_fraction": 0}, "task.ce_fraction must be above 0"),
        (
            {"data": "davis", "frames": 12},
            "task.frames is an option of embedded alone, but task.data is davis; leave it",
        ),
        (
            {"eval_size": 240},
            "task.eval_size is an option of davis, davis-2016, youtube-vos, images alone, but task.data",
        ),
        ({"leave_out": ["bear"]}, "task.leave_out is an option of davis, davis-2016, youtube-vos, images alone, but"),
        ({"data": "davis", "all_frames": True}, "task.all_frames is an option of youtube-vos alone, but task.data is"),
    ],
)
def test_wrong_options_are_named(options: dict, line: str) -> None:
    with pytest.raises(UserError) as error:
        VOSConfig(**options)
    assert line in str(error.value)


@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
@pytest.mark.parametrize("data", ["davis", "youtube-vos", "images"])
def test_every_preset_takes_files(preset: str, data: str) -> None:
    config = dataclasses.replace(PRESETS[preset], data=data, data_path="there")
    assert VOSConfig(**dataclasses.asdict(config)) == config  # as a record writes it out


def test_options_of_embedded_clips_reach_them() -> None:
    spec = VOSConfig(image_size=32, frames=12, objects=1, distractors=4, occlusion_frames=5, drift_rate=0.5).video_spec
    assert (spec.image_size, spec.frames, spec.objects) == (32, 12, 1)
    assert (spec.distractors, spec.occlusion_frames, spec.drift_rate) == (4, 5, 0.5)
