"""LaSOT: the published test set, folders of classes or none, occlusion and absence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.data.boxed_folder import BoxedFolders
from bench.data.lasot import TEST, open_lasot, write_lasot_result
from bench.errors import UserError
from tests.data.video_files import save_lasot

AIRPLANES = [f"airplane-{number}" for number in range(1, 21)]


def opened(root: Path, split: str = "test", **options) -> BoxedFolders:
    return open_lasot(root, split, **{"workers": 1, **options})


@pytest.fixture
def lasot(tmp_path: Path) -> Path:
    return save_lasot(tmp_path / "lasot", AIRPLANES)


def names(videos: BoxedFolders) -> list[str]:
    return [videos.info(clip).name for clip in range(len(videos))]


def test_the_published_test_set_is_known_without_its_list(lasot: Path) -> None:
    assert names(opened(lasot)) == ["airplane-1", "airplane-9", "airplane-13", "airplane-15"]
    train, validation = opened(lasot, "train"), opened(lasot, "validation")
    assert sorted(names(train) + names(validation)) == sorted(set(AIRPLANES) - TEST)
    assert opened(lasot).notices == ("test: 4 of the 280 published videos are there",)
    assert train.notices == ("train: 16 of the 1120 published videos are there",)
    classes = [name.rpartition("-")[0] for name in TEST]
    assert len(TEST) == 280
    assert {classes.count(name) for name in classes} == {4}
    assert all(1 <= int(name.rpartition("-")[2]) <= 20 for name in TEST)


def test_a_list_is_taken_where_there_is_one(lasot: Path) -> None:
    (lasot / "testing_set.txt").write_text("airplane-4\nairplane-2\n")
    assert names(opened(lasot)) == ["airplane-4", "airplane-2"]
    assert opened(lasot).notices == ()
    (lasot / "testing_set.txt").write_text("airplane-4\nbear-2\nbear-4\n")
    with pytest.raises(
        UserError, match=r"testing_set.txt lists bear-2 and 1 more that are not in .*: unpack their classes"
    ):
        opened(lasot)


def test_folders_of_videos_without_classes_are_read_too(lasot: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for folder in (lasot / "airplane").iterdir():
        folder.rename(flat / folder.name)
    assert names(opened(flat)) == ["airplane-1", "airplane-9", "airplane-13", "airplane-15"]


def test_boxes_count_from_0_and_know_occlusion_and_absence(lasot: Path) -> None:
    boxes = opened(lasot).boxes(0)
    assert boxes.xywh[:3].tolist() == [[0, 0, 6, 8], [1, 2, 6, 8], [2, 4, 6, 8]]
    assert np.isnan(boxes.xywh[3]).all()
    assert boxes.present.tolist() == [True, True, True, False]
    assert boxes.visible.tolist() == [1, 1, 0, 0], "fully occluded: in the picture, not seen"
    assert opened(lasot, first_pixel=0).boxes(0).xywh[0].tolist() == [1, 1, 6, 8]
    assert opened(lasot).frames(0, np.array([1, 3])).shape == (2, 24, 32, 3)
    with pytest.raises(UserError, match=r"first_pixel must be 0 or 1, got 2"):
        opened(lasot, first_pixel=2)


def test_boxes_without_area_are_told_unless_the_target_is_hidden(lasot: Path) -> None:
    truth = lasot / "airplane" / "airplane-1" / "groundtruth.txt"
    truth.write_text("1,1,6,8\n0,0,0,0\n0,0,0,0\n0,0,0,0\n")
    videos = opened(lasot)
    assert videos.boxes(0).present.tolist() == [True, False, False, False]
    assert "test: in 1 frames the box has no area; the target counts as absent there" in videos.notices


def test_the_fingerprint_follows_the_labels(lasot: Path) -> None:
    before = opened(lasot).fingerprint
    (lasot / "airplane" / "airplane-9" / "full_occlusion.txt").write_text("0,1,1,0")
    assert opened(lasot).fingerprint != before


def test_mistakes_are_named(lasot: Path, tmp_path: Path) -> None:
    folder = lasot / "airplane" / "airplane-9"
    (folder / "out_of_view.txt").write_text("0,0,0")
    with pytest.raises(UserError, match=r"airplane-9/out_of_view.txt has 3 numbers for 4 frames"):
        opened(lasot)
    (folder / "full_occlusion.txt").unlink()
    with pytest.raises(UserError, match=r"airplane-9/full_occlusion.txt cannot be read"):
        opened(lasot)
    (folder / "groundtruth.txt").write_text("1,1,6,8\n")
    with pytest.raises(UserError, match=r"airplane-9/groundtruth.txt has 1 boxes for 4 frames"):
        opened(lasot)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no video of LaSOT"):
        opened(tmp_path / "empty")
    with pytest.raises(UserError, match=r"nowhere is missing: it should hold the classes of LaSOT"):
        opened(tmp_path / "nowhere")
    only = save_lasot(tmp_path / "only", ["airplane-2", "airplane-3"])
    with pytest.raises(UserError, match=r"holds no video of the published test set, and no testing_set.txt"):
        opened(only)


def test_results_are_a_line_a_frame_counted_from_1(tmp_path: Path) -> None:
    write_lasot_result(tmp_path / "mixformer", "airplane-1", np.array([[0, 0, 6, 8], [1.5, 2, 6, 8]]))
    lines = (tmp_path / "mixformer" / "airplane-1.txt").read_text().splitlines()
    assert lines == ["1.0000,1.0000,6.0000,8.0000", "2.5000,3.0000,6.0000,8.0000"]
