"""DAVIS: both forms of lists, both years, every mistake in one line, and that what is written is read back."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.davis import open_davis, write_davis
from bench.data.got10k import open_got10k
from bench.data.index_masks import palette_of, pascal_palette, read_mask
from bench.data.masked_folder import MaskedFolders
from bench.data.video.clips import ClipInfo
from bench.errors import UserError
from tests.data.video_files import HEIGHT, WIDTH, Made, mask, picture, save_davis, save_frame, save_mask

TRAIN = [f"t{number}" for number in range(20)]


def opened(root: Path, split: str = "test", **options) -> MaskedFolders:
    return open_davis(root, split, **{"workers": 1, **options})


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    return save_davis(tmp_path / "DAVIS", {"train": TRAIN, "val": ["bear", "cow"], "test-dev": ["hidden"]})


def names(videos: MaskedFolders) -> list[str]:
    return [videos.info(clip).name for clip in range(len(videos))]


def test_splits_are_those_of_the_lists_and_validation_is_held_out_of_training(davis: Path) -> None:
    train, validation = names(opened(davis, "train")), names(opened(davis, "validation"))
    assert sorted(train + validation, key=TRAIN.index) == TRAIN
    assert len(validation) == 2, "a tenth, where that is less than six"
    assert names(opened(davis)) == ["bear", "cow"]
    hidden = opened(davis, "submission")
    assert hidden.info(0).annotated.tolist() == [True, False, False]
    assert "scored on the server" in hidden.notices[0]
    with pytest.raises(UserError, match="no split 'shifted' here, only train, validation, test, submission"):
        opened(davis, "shifted")


def test_frames_and_masks_are_as_stored(davis: Path) -> None:
    videos = opened(davis)
    info = videos.info(1)
    assert (info.name, info.frames, info.height, info.width) == ("cow", 3, HEIGHT, WIDTH)
    assert (info.first_frames, info.object_ids, info.factors) == ((0, 0), (1, 2), ())
    frames, masks = videos.frames(1, np.array([2, 0])), videos.masks(1, np.array([2, 0]))
    assert (frames.shape, frames.dtype, masks.dtype) == ((2, HEIGHT, WIDTH, 3), np.uint8, np.uint8)
    assert abs(frames[0].astype(int) - picture(2, 1)).mean() < 4
    assert np.array_equal(masks, [mask(1, 2, frame=2), mask(1, 2)])
    assert info is videos.info(1), "looked up once"


def test_numbers_with_gaps_late_objects_and_void(davis: Path) -> None:
    folder = davis / "Annotations" / "480p" / "cow"
    first, later = mask(7), mask(7, 3, frame=1)
    later[-1] = 255
    for frame, numbers in enumerate((first, later, later)):
        save_mask(folder / f"{frame:05d}.png", numbers)
    videos = opened(davis)
    assert videos.info(1).object_ids == (3, 7)
    assert videos.info(1).first_frames == (1, 0)
    expected = np.select([later == 7, later == 3, later == 255], [2, 1, 255], 0)
    assert np.array_equal(videos.masks(1, np.array([1]))[0], expected)


def test_2016_has_one_object_and_reads_both_forms_of_lists(davis: Path) -> None:
    lists = davis / "ImageSets"
    (lists / "480p").mkdir()
    lines = [
        f"/JPEGImages/480p/{name}/{frame:05d}.jpg /Annotations/480p/{name}/{frame:05d}.png"
        for name in ("cow", "bear")
        for frame in range(3)
    ]
    (lists / "480p" / "val.txt").write_text("\n".join(lines))
    videos = opened(davis, year=2016)
    assert names(videos) == ["cow", "bear"]
    assert videos.info(0).object_ids == (1,)
    assert np.array_equal(videos.masks(0, np.array([0]))[0], mask(1, 1))
    (lists / "2016").mkdir()
    (lists / "2016" / "val.txt").write_text("bear\n")
    assert names(opened(davis, year=2016)) == ["bear"]
    # As the first release stores them.
    Image.fromarray(mask(255)).save(davis / "Annotations" / "480p" / "bear" / "00000.png")
    assert np.array_equal(opened(davis, year=2016).masks(0, np.array([0]))[0], mask(1))
    with pytest.raises(UserError, match=r"year must be 2016 or 2017, got 2018"):
        opened(davis, year=2018)


def test_the_fingerprint_is_of_what_lies_there_not_of_where(davis: Path, tmp_path: Path) -> None:
    before = opened(davis).fingerprint
    moved = davis.rename(tmp_path / "elsewhere")
    assert opened(moved).fingerprint == before
    save_mask(
        moved / "Annotations" / "480p" / "cow" / "00002.png",
        np.random.default_rng(0).integers(0, 3, (24, 32), np.uint8),
    )
    assert opened(moved).fingerprint != before
    assert opened(moved, limit=1).fingerprint != opened(moved).fingerprint


def test_a_limit_and_names_left_out_are_told(davis: Path) -> None:
    assert names(opened(davis, leave_out=["bear"])) == ["cow"]
    assert opened(davis, leave_out=["bear"]).notices == ("test: 1 of 2 videos are left out by name",)
    some = opened(davis, "train", limit=5)
    assert len(some) == 5
    assert some.notices == ("train: only 5 of 18 videos are used, chosen by a hash of their names",)
    assert names(some) == [name for name in names(opened(davis, "train")) if name in names(some)]
    with pytest.raises(UserError, match="no video is left for test"):
        opened(davis, leave_out=["bear", "cow"])


def test_what_is_missing_is_named(davis: Path) -> None:
    with pytest.raises(UserError, match=r"JPEGImages/Full-Resolution is missing: it should hold the frames of DAVIS"):
        opened(davis, resolution="Full-Resolution")
    shutil.rmtree(davis / "Annotations" / "480p" / "cow")
    with pytest.raises(UserError, match=r"Annotations/480p/cow cannot be read \(No such file or directory\): fetch it"):
        opened(davis)
    (davis / "Annotations" / "480p" / "cow").mkdir()
    with pytest.raises(UserError, match=r"Annotations/480p/cow holds no image \(.png\): fetch it again"):
        opened(davis)
    (davis / "ImageSets" / "2017" / "val.txt").unlink()
    with pytest.raises(
        UserError, match=r"ImageSets/2017/val.txt cannot be read .*: it should hold the sequences of DAVIS 2017 val"
    ):
        opened(davis)


def test_a_frame_without_its_mask_is_named_but_in_a_submission(davis: Path) -> None:
    (davis / "Annotations" / "480p" / "cow" / "00001.png").unlink()
    line = r"cow has no mask .*480p/cow/00001.png \(1 of 3 frames lack theirs\): fetch it again, or name cow in task.leave_out"
    with pytest.raises(UserError, match=line):
        opened(davis)
    assert names(opened(davis, leave_out=["cow"])) == ["bear"]
    for name in TRAIN:
        (davis / "Annotations" / "480p" / name / "00002.png").unlink()
    for split in ("train", "validation"):
        with pytest.raises(UserError, match=r"t\d+ has no mask .*00002.png"):
            opened(davis, split)
    assert len(opened(davis, "submission")) == 1


def test_files_that_do_not_fit_are_named(davis: Path) -> None:
    masks, images = davis / "Annotations" / "480p" / "cow", davis / "JPEGImages" / "480p" / "cow"
    save_mask(masks / "00001.png", mask(1, 2, shape=(30, 40)))
    with pytest.raises(
        UserError, match=r"the mask .*cow/00001.png has 40 x 30 pixels, but its frame has 32 x 24: take both"
    ):
        opened(davis).info(1)
    save_mask(masks / "00001.png", mask(1, 2))
    save_frame(images / "00002.jpg", picture(2, shape=(30, 40)))
    with pytest.raises(
        UserError, match=r"cow/00002.jpg has 40 x 30 pixels, but 00000.jpg of the same video has 32 x 24: .*leave_out"
    ):
        opened(davis).frames(1, np.array([0, 2]))
    (images / "00002.jpg").write_bytes((images / "00001.jpg").read_bytes()[:-300])
    with pytest.raises(UserError, match=r"cow/00002.jpg cannot be decoded"):
        opened(davis).frames(1, np.array([2]))
    for frame in range(3):
        save_mask(masks / f"{frame:05d}.png", mask())
    with pytest.raises(UserError, match=r"no mask in .*cow has an object"):
        opened(davis).info(1)
    save_mask(masks / "00009.png", mask(1))
    with pytest.raises(
        UserError, match=r"the mask 00009 in .*Annotations/480p/cow has no frame in .*JPEGImages/480p/cow"
    ):
        opened(davis)
    (masks / "00009.png").unlink()
    save_frame(images / "00001.png", picture(1))
    with pytest.raises(UserError, match=r"cow holds frame 00001 in two formats: remove one"):
        opened(davis)


def test_a_mask_in_colours_is_named_where_it_is_met(davis: Path) -> None:
    path = davis / "Annotations" / "480p" / "bear" / "00001.png"
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(UserError, match=r"bear/00001.png has colours \(mode RGB\)"):
        opened(davis).info(0)
    with pytest.raises(ValueError, match="frame 2 of hidden has no mask"):
        opened(davis, "submission").masks(0, np.array([2]))


def test_videos_written_without_loss_are_read_back_identical(tmp_path: Path) -> None:
    made, told = Made(), []  # has a frame without a mask, which test-dev alone may have
    write_davis(made, tmp_path, name="test-dev", quality=None, report=lambda *step: told.append(step))
    assert told == [("writing DAVIS", done, 3) for done in range(4)]
    videos = opened(tmp_path, "submission")
    assert names(videos) == ["clip-0", "clip-1", "clip-2"]
    for clip in range(3):
        ours, info, all_frames = made.info(clip), videos.info(clip), np.arange(5)
        assert (info.first_frames, info.annotated.tolist()) == (ours.first_frames, ours.annotated.tolist())
        assert np.array_equal(videos.frames(clip, all_frames), made.frames(clip, all_frames))
        annotated = np.flatnonzero(ours.annotated)
        assert np.array_equal(videos.masks(clip, annotated), made.masks(clip, annotated))
    assert palette_of(tmp_path / "Annotations" / "480p" / "clip-0" / "00000.png") == pascal_palette()


def test_videos_written_as_jpeg_are_close_and_nothing_is_overwritten(tmp_path: Path) -> None:
    class Whole(Made):
        def info(self, clip: int) -> ClipInfo:
            return dataclasses.replace(super().info(clip), annotated=np.ones(self.length, bool))

    made = Whole()
    write_davis(made, tmp_path)
    frames = opened(tmp_path).frames(1, np.arange(5)).astype(int)
    assert abs(frames - made.frames(1, np.arange(5))).mean() < 2
    with pytest.raises(UserError, match=r"val.txt is there already and is not overwritten"):
        write_davis(made, tmp_path)
    with pytest.raises(UserError, match=r"JPEGImages/480p/clip-0 is there already and is not overwritten"):
        write_davis(made, tmp_path, name="train")
    write_davis(made, tmp_path, name="train", prefix="train-")
    assert (tmp_path / "ImageSets" / "2017" / "train.txt").read_text() == "train-clip-0\ntrain-clip-1\ntrain-clip-2\n"
    assert names(opened(tmp_path)) == ["clip-0", "clip-1", "clip-2"]
    assert len(opened(tmp_path, "train")) == 2


def test_predictions_have_the_names_numbers_size_and_palette_of_the_data_set(davis: Path, tmp_path: Path) -> None:
    folder = davis / "Annotations" / "480p" / "cow"
    own = np.random.default_rng(1).integers(0, 256, 768).tolist()
    for frame in range(3):
        save_mask(folder / f"{frame:05d}.png", mask(4, 9, frame=frame), own)
    videos = opened(davis)
    predicted = videos.masks(1, np.arange(3))
    videos.write_prediction(tmp_path / "out", 1, predicted)
    written = sorted((tmp_path / "out" / "cow").iterdir())
    assert [path.name for path in written] == ["00000.png", "00001.png", "00002.png"]
    for frame, path in enumerate(written):
        assert np.array_equal(read_mask(path), mask(4, 9, frame=frame))
        assert palette_of(path) == own
    with pytest.raises(ValueError, match="masks of cow are"):
        videos.write_prediction(tmp_path / "new", 1, predicted[:, ::2])
    with pytest.raises(UserError, match="out/cow is there already and is not overwritten"):
        videos.write_prediction(tmp_path / "out", 1, predicted)


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "real-video.md").read_text()
    read, write = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    save_davis(tmp_path / "DAVIS", {"val": ["bear"]}, frames=4)
    found: dict = {}
    exec(read, found)
    assert found["frames"].shape == (4, HEIGHT, WIDTH, 3)
    assert found["masks"].shape == (4, HEIGHT, WIDTH)
    few = "VideoSpec(train_clips=1, validation_clips=1, test_clips=2, shifted_clips=1)"
    assert write.count("VideoSpec()") == 1
    exec(write.replace("VideoSpec()", few), found)
    assert len(opened(tmp_path / "rendered-davis")) == len(open_got10k(tmp_path / "rendered-got10k", "test")) == 2
