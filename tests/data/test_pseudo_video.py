"""Pseudo-videos: functions of name, seed and draw, masks that move with their image, folders of still images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.data.index_masks import ids_of
from bench.data.pseudo_video import PseudoVideos, open_static_images
from bench.errors import UserError
from tests.data.video_files import HEIGHT, WIDTH, Made, mask, picture, save_frame, save_mask


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_mask_and_image_move_together_and_no_number_is_made_up(draw: int) -> None:
    """An image that shows its own mask: where the mask says object, the warped image is bright."""

    class Shown(Made):
        def frames(self, clip: int, which: np.ndarray) -> np.ndarray:
            return np.repeat(np.where(self.masks(clip, which) == 1, 200, 0).astype(np.uint8)[..., None], 3, -1)

    frames, masks = PseudoVideos(Shown(), 3).warped(1, np.uint64(draw))
    assert frames.shape == (3, HEIGHT, WIDTH, 3)
    assert set(np.unique(masks)) <= {0, 1, 255}
    seen, said = frames[..., 0] > 100, masks == 1
    assert (seen ^ said).sum() <= 0.1 * said.sum(), "but for pixels on the edge"


def test_clips_are_functions_of_name_seed_and_draw() -> None:
    videos, all_frames = PseudoVideos(Made(), 4), np.arange(4)
    info = videos.info(0)
    assert (info.name, info.frames, info.first_frames, info.object_ids) == ("clip-0", 4, (0,), (1,)), (
        "the late object is left out"
    )
    frames, masks = videos.frames(0, all_frames), videos.masks(0, all_frames)
    assert np.array_equal(frames[0], picture(0, 0))
    assert np.array_equal(masks[0][:-1], mask(1)[:-1])
    assert len({one.tobytes() for one in frames}) == 4
    assert np.array_equal(videos.frames(0, np.array([3, 1])), frames[[3, 1]])
    assert np.array_equal(PseudoVideos(Made(), 7).frames(0, all_frames), frames), "a longer clip begins alike"
    assert not np.array_equal(PseudoVideos(Made(), 4, seed=1).frames(0, all_frames), frames)
    first, second = videos.warped(0, np.uint64(1)), videos.warped(0, np.uint64(2))
    assert np.array_equal(first[0], videos.warped(0, np.uint64(1))[0])
    assert not np.array_equal(first[0], second[0])
    assert videos.fingerprint != PseudoVideos(Made(), 4, seed=1).fingerprint
    assert videos.notices[-1].startswith("pseudo-videos")
    with pytest.raises(UserError, match=r"clip_frames must be >= 1, got 0"):
        PseudoVideos(Made(), 0)


def test_images_are_resized_before_they_are_warped() -> None:
    videos = PseudoVideos(Made(), 2, size=12)
    assert (videos.info(1).height, videos.info(1).width) == (12, 16)
    assert videos.frames(1, np.arange(2)).shape == (2, 12, 16, 3)
    assert videos.masks(1, np.arange(2)).shape == (2, 12, 16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(40):
        save_frame(tmp_path / "images" / f"{number % 2}" / f"{number}.jpg", picture(number))
        save_mask(tmp_path / "masks" / f"{number % 2}" / f"{number}.png", mask(2, 7))
    return tmp_path


def test_folders_of_images_and_masks_are_videos_of_one_frame(folder: Path) -> None:
    splits = [open_static_images(folder, split) for split in ("train", "validation", "test")]
    names = [one.info(clip).name for one in splits for clip in range(len(one))]
    assert len(names) == len(set(names)) == 40
    assert len(splits[0]) > 30
    train = splits[0]
    assert train.info(0).object_ids == (2, 7)
    assert np.array_equal(train.masks(0, np.zeros(1, int))[0], mask(1, 2))
    warped = PseudoVideos(train, 3).masks(0, np.arange(3))
    assert ids_of(warped) == [1, 2]
    assert open_static_images(folder, "train", limit=3).fingerprint != train.fingerprint


def test_masks_beside_their_images_in_black_and_white_or_soft(tmp_path: Path) -> None:
    for number in range(30):
        save_frame(tmp_path / f"{number}.jpg", picture(number))
        Image.fromarray(mask(255)).save(tmp_path / f"{number}.png")
    images = open_static_images(tmp_path, "train")
    assert np.array_equal(images.masks(0, np.zeros(1, int))[0], mask(1))
    soft = (
        Image.fromarray(mask(255))
        .resize((16, 12), Image.Resampling.BILINEAR)
        .resize((32, 24), Image.Resampling.BILINEAR)
    )
    soft.save(images.pairs[0][2])
    with pytest.raises(UserError, match="has soft edges"):
        open_static_images(tmp_path, "train").info(0)
    assert open_static_images(tmp_path, "train", threshold=128).info(0).object_ids == (1,)


def test_mistakes_are_named(folder: Path) -> None:
    images = open_static_images(folder, "train")
    save_mask(images.pairs[0][2], mask())
    with pytest.raises(UserError, match=r"the mask .* has no object: remove it with its image"):
        images.info(0)
    save_mask(images.pairs[1][2], mask(1, shape=(30, 40)))
    with pytest.raises(UserError, match=r"the mask .* has 40 x 30 pixels, but its image has 32 x 24"):
        images.info(1)
    images.pairs[2][2].unlink()
    with pytest.raises(UserError, match=r"images/.*jpg has no mask of the same name"):
        open_static_images(folder, "train")
    images.pairs[2][1].unlink()
    images.pairs[3][1].unlink()
    with pytest.raises(UserError, match=r"masks/.*png has no image of the same name"):
        open_static_images(folder, "train")
    with pytest.raises(UserError, match=r"nowhere is missing: it should hold images and masks"):
        open_static_images(folder / "nowhere", "train")
