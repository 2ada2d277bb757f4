"""YouTube-VOS: late objects, sparse truth, all frames, and meta.json held against the masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.data.index_masks import ids_of, read_mask
from bench.data.masked_folder import MaskedFolders
from bench.data.youtube_vos import open_youtube_vos, write_youtube_vos
from bench.errors import UserError
from tests.data.video_files import mask, save_mask, save_youtube_vos


def opened(root: Path, split: str = "train", **options) -> MaskedFolders:
    return open_youtube_vos(root, split, **{"workers": 1, **options})


@pytest.fixture
def youtube(tmp_path: Path) -> Path:
    return save_youtube_vos(tmp_path / "youtube")


def change_meta(root: Path, part: str, video: str, change) -> None:
    path = root / part / "meta.json"
    meta = json.loads(path.read_text())
    change(meta["videos"][video]["objects"])
    path.write_text(json.dumps(meta))


def name_of(videos: MaskedFolders, clip: int = 0) -> str:
    return videos.info(clip).name


def test_late_objects_keep_the_numbers_of_the_data_set(youtube: Path) -> None:
    videos = opened(youtube)
    info = videos.info(0)
    assert (info.frames, info.first_frames, info.object_ids) == (4, (0, 2), (3, 5))
    assert info.annotated.all()
    masks = videos.masks(0, np.array([1, 2]))
    assert ids_of(masks[0]) == [1]
    assert np.array_equal(masks[1], mask(1, 2, frame=10))


def test_splits_are_held_out_of_training_and_told(youtube: Path) -> None:
    split = {name: opened(youtube, name) for name in ("train", "validation", "test")}
    names = [videos.info(clip).name for videos in split.values() for clip in range(len(videos))]
    assert len(names) == len(set(names)) == 12
    assert [len(videos) for videos in split.values()] == [10, 1, 1]
    assert split["train"].notices == ()
    assert "the truth of valid/ is not published" in split["test"].notices[0]
    assert len({videos.fingerprint for videos in split.values()}) == 3


def test_valid_has_first_masks_only_and_is_submitted(youtube: Path) -> None:
    videos = opened(youtube, "submission")
    info = videos.info(0)
    assert info.annotated.tolist() == [True, False, True, False]
    assert info.first_frames == (0, 2)
    assert ids_of(videos.masks(0, np.array([2]))[0]) == [2], "the late object's own mask alone"
    assert "scored on the server" in videos.notices[0]


def test_all_frames_are_read_and_the_listed_ones_submitted(youtube: Path, tmp_path: Path) -> None:
    videos = opened(youtube, "submission", all_frames=True)
    info = videos.info(0)
    assert (info.frames, info.first_frames) == (16, (0, 10))
    assert np.flatnonzero(info.annotated).tolist() == [0, 10]
    assert videos.fingerprint != opened(youtube, "submission").fingerprint
    predicted = np.stack([mask(1, 2, frame=frame) if frame >= 10 else mask(1, frame=frame) for frame in range(16)])
    write_youtube_vos(videos, tmp_path, 0, predicted)
    written = sorted((tmp_path / "Annotations" / info.name).iterdir())
    assert [path.name for path in written] == ["00000.png", "00005.png", "00010.png", "00015.png"]
    assert np.array_equal(read_mask(written[1]), mask(3, frame=5))
    assert np.array_equal(read_mask(written[3]), mask(3, 5, frame=15))
    with pytest.raises(UserError, match=r"train_all_frames/JPEGImages is missing: .*all_frames is true"):
        opened(youtube, "train", all_frames=True)


def test_meta_that_disagrees_with_the_masks_is_named(youtube: Path) -> None:
    name = name_of(opened(youtube))
    folder = youtube / "train" / "Annotations" / name
    save_mask(folder / "00005.png", mask(3, 5))
    with pytest.raises(
        UserError, match=rf"{name}/00005.png has object 5, which by meta.json begins in frame 00010: .*leave_out"
    ):
        opened(youtube).masks(0, np.array([1]))
    save_mask(folder / "00005.png", mask(3, 8))
    with pytest.raises(UserError, match=rf"{name}/00005.png has object 8, which meta.json does not list"):
        opened(youtube).masks(0, np.array([1]))
    save_mask(folder / "00010.png", mask(3))
    with pytest.raises(UserError, match=rf"{name}/00010.png lacks object 5, which by meta.json begins here"):
        opened(youtube).masks(0, np.array([2]))
    (folder / "00010.png").unlink()
    with pytest.raises(UserError, match=rf"object 5 of {name} begins in frame 00010, but .*{name} has no mask of it"):
        opened(youtube)
    left = opened(youtube, leave_out=[name])
    assert name not in [left.info(clip).name for clip in range(len(left))]


def test_meta_that_is_no_meta_is_named(youtube: Path) -> None:
    name = name_of(opened(youtube))
    change_meta(youtube, "train", name, lambda objects: objects.update({"255": objects["3"]}))
    with pytest.raises(UserError, match=rf"object '255' of {name} must be a number from 1 to 254"):
        opened(youtube)
    change_meta(youtube, "train", name, lambda objects: objects.clear())
    with pytest.raises(UserError, match=rf"lists no object of {name}"):
        opened(youtube)
    path = youtube / "train" / "meta.json"
    for text in (
        "{",
        '{"videos": {"a": {"objects": {"1": {}}}}}',
        '{"videos": {"a": {"objects": {"1": {"frames": []}}}}}',
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=r"meta.json is not as YouTube-VOS has it"):
            opened(youtube)
    path.unlink()
    with pytest.raises(
        UserError, match=r"meta.json cannot be read \(No such file or directory\): it should hold the videos"
    ):
        opened(youtube)


def test_files_that_do_not_fit_are_named_and_unlisted_folders_told(youtube: Path) -> None:
    name = name_of(opened(youtube))
    (youtube / "train" / "JPEGImages" / "stray").mkdir()
    assert "train: 1 folders of train/JPEGImages are not in meta.json and are not read" in opened(youtube).notices
    (youtube / "train" / "JPEGImages" / name / "00015.jpg").unlink()
    with pytest.raises(UserError, match=rf"Annotations/{name} has 00015, of which .*JPEGImages/{name} has no frame"):
        opened(youtube)
    with pytest.raises(
        UserError, match=r"nowhere/train is missing: it should hold JPEGImages, Annotations and meta.json"
    ):
        opened(youtube.parent / "nowhere")
