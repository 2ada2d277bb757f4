"""GOT-10k: boxes counted from 1, absence and cover, and that what is written is read back."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.boxed_folder import BoxedFolders, result_lines
from bench.data.got10k import FAULTY, open_got10k, write_got10k, write_got10k_result
from bench.data.video.clips import Boxes
from bench.errors import UserError
from tests.data.video_files import Made, picture, save_frame


def opened(root: Path, split: str = "test", **options) -> BoxedFolders:
    return open_got10k(root, split, **{"workers": 1, **options})


@pytest.fixture
def got10k(tmp_path: Path) -> Path:
    root = tmp_path / "got10k"
    for part in ("train", "val", "test"):
        write_got10k(Made(count=12 if part == "train" else 2), root / part, quality=None)
    for folder in (root / "test").glob("clip-*"):
        first = (folder / "groundtruth.txt").read_text().splitlines()[0]
        (folder / "groundtruth.txt").write_text(first + "\n")
        for label in folder.glob("*.label"):
            label.unlink()
    return root


def test_what_is_written_is_read_back(got10k: Path) -> None:
    videos, made = opened(got10k), Made()
    info, ours, boxes = videos.info(1), made.boxes(1), videos.boxes(1)
    assert (info.name, info.frames, info.first_frames, info.object_ids) == ("clip-1", 5, (0,), (1,))
    assert info.annotated.all()
    np.testing.assert_allclose(boxes.xywh, ours.xywh, atol=1e-4)
    assert boxes.xywh.dtype == boxes.visible.dtype == np.float32
    assert boxes.present.tolist() == [True, False, True, True, True]
    assert boxes.visible.tolist() == [1, 0, 0.5, 0.25, 0]
    assert np.array_equal(videos.frames(1, np.array([4, 0])), made.frames(1, np.array([4, 0])))


def test_files_are_as_published(got10k: Path) -> None:
    folder = got10k / "val" / "clip-0"
    assert (got10k / "val" / "list.txt").read_text() == "clip-0\nclip-1\n"
    assert (folder / "00000001.png").is_file()
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    assert lines[0] == "1.0000,3.2500,6.0000,10.0000", "counted from 1"
    assert lines[1] == "-1.0000,-1.0000,-1.0000,-1.0000"
    assert (folder / "absence.label").read_text().split() == ["0", "1", "0", "0", "0"]
    assert (folder / "cover.label").read_text().split() == ["8", "0", "4", "2", "0"]
    assert (folder / "cut_by_image.label").read_text().split() == ["1", "0", "0", "0", "0"], (
        "the first lies at the left border"
    )
    assert "resolution: (32, 24)" in (folder / "meta_info.ini").read_text()


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1, width=32))
def test_cover_says_whether_anything_is_seen(tmp_path_factory: pytest.TempPathFactory, visible: float) -> None:
    class Covered(Made):
        def boxes(self, clip: int) -> Boxes:
            boxes = super().boxes(clip)
            boxes.visible[0] = visible
            return boxes

    root = tmp_path_factory.mktemp("cover")
    write_got10k(Covered(count=1), root / "val")
    read = opened(root).boxes(0).visible[0]
    assert read - 1 / 8 - 1e-5 < visible <= read + 1e-5
    assert (read > 0) == (visible > 1e-5)


def test_splits_and_what_is_known_to_be_broken(got10k: Path) -> None:
    train, validation = opened(got10k, "train"), opened(got10k, "validation")
    assert (len(train), len(validation)) == (11, 1)
    assert "held out" in validation.notices[0]
    (got10k / "train" / "clip-3").rename(got10k / "train" / FAULTY[0])
    listed = got10k / "train" / "list.txt"
    listed.write_text(listed.read_text().replace("clip-3\n", f"{FAULTY[0]}\n"))
    train = opened(got10k, "train")
    assert len(train) == 10
    assert train.notices == ("train: 1 of 11 videos are left out by name",)
    assert len(opened(got10k, "train", leave_out=())) == 11
    assert len(FAULTY) == 18


def test_the_published_test_set_has_the_first_box_only(got10k: Path) -> None:
    videos = opened(got10k, "submission")
    info, boxes = videos.info(0), videos.boxes(0)
    assert info.annotated.tolist() == [True, False, False, False, False]
    np.testing.assert_allclose(boxes.xywh[0], [0, 2.25, 6, 10], atol=1e-4)
    assert np.isnan(boxes.xywh[1:]).all()
    assert boxes.present.tolist() == [True, False, False, False, False]
    assert "scored on the server" in videos.notices[0]


def test_boxes_without_area_are_absent_and_told(got10k: Path) -> None:
    path = got10k / "val" / "clip-1" / "groundtruth.txt"
    lines = path.read_text().splitlines()
    lines[2] = "5,5,0,7"
    path.write_text("\n".join(lines))
    videos = opened(got10k)
    assert videos.boxes(1).present.tolist() == [True, False, False, True, True]
    assert videos.notices == ("test: in 1 frames the box has no area; the target counts as absent there",)


def test_mistakes_are_named(got10k: Path) -> None:
    folder = got10k / "val" / "clip-1"
    truth = folder / "groundtruth.txt"
    good = truth.read_text()
    for line, says in (
        ("1,2,3", "is not 4 numbers"),
        ("1,2,x,4", "is not 4 numbers"),
        ("1,2,nan,4", "the box is not finite"),
    ):
        truth.write_text(good.replace("3.0000,5.2500,6.0000,10.0000", line))
        with pytest.raises(UserError, match=rf"clip-1/groundtruth.txt, line 3: .*{says}"):
            opened(got10k)
    truth.write_text(good + "1,2,3,4\n")
    with pytest.raises(UserError, match=r"groundtruth.txt has 6 boxes for 5 frames: fetch the sequence again"):
        opened(got10k)
    truth.write_text("0,0,0,0\n" * 5)
    with pytest.raises(UserError, match=r"groundtruth.txt has the target in no frame"):
        opened(got10k)
    truth.write_text(good)
    (folder / "cover.label").write_text("8\n8\n")
    with pytest.raises(UserError, match=r"cover.label has 2 numbers for 5 frames"):
        opened(got10k)
    (folder / "cover.label").write_text("8\n8\n9\n8\n8\n")
    with pytest.raises(UserError, match=r"cover.label has numbers beyond 0 to 8"):
        opened(got10k)
    (folder / "cover.label").write_text("8\n8\n0.5\n8\n8\n")
    with pytest.raises(UserError, match=r"cover.label: .*0.5.*: it should hold whole numbers"):
        opened(got10k)
    (folder / "cover.label").unlink()
    with pytest.raises(UserError, match=r"cover.label cannot be read \(No such file or directory\)"):
        opened(got10k)
    shutil.rmtree(folder)
    with pytest.raises(
        UserError, match=r"val/clip-1 is missing: it should hold the frames of clip-1, which list.txt has"
    ):
        opened(got10k)
    (got10k / "val" / "list.txt").unlink()
    with pytest.raises(UserError, match=r"val/list.txt cannot be read .*: it should hold the names of the sequences"):
        opened(got10k)


def test_a_frame_of_another_size_is_named(got10k: Path) -> None:
    save_frame(got10k / "val" / "clip-0" / "00000003.png", picture(2, shape=(30, 40)))
    with pytest.raises(
        UserError, match=r"00000003.png has 40 x 30 pixels, but 00000001.png of the same video has 32 x 24"
    ):
        opened(got10k).frames(0, np.array([2]))


def test_the_fingerprint_follows_frames_and_boxes(got10k: Path, tmp_path: Path) -> None:
    before = opened(got10k).fingerprint
    moved = got10k.rename(tmp_path / "elsewhere")
    assert opened(moved).fingerprint == before
    truth = moved / "val" / "clip-0" / "groundtruth.txt"
    truth.write_text(truth.read_text().replace("6.0000", "6.5000"))
    assert opened(moved).fingerprint != before


def test_an_interrupted_export_leaves_whole_sequences_and_is_not_overwritten(tmp_path: Path) -> None:
    class Breaking(Made):
        def frames(self, clip: int, which: np.ndarray) -> np.ndarray:
            if clip == 1 and which[0] == 2:
                raise KeyboardInterrupt
            return super().frames(clip, which)

    with pytest.raises(KeyboardInterrupt):
        write_got10k(Breaking(), tmp_path / "val")
    assert [path.name for path in (tmp_path / "val").iterdir()] == ["clip-0"]
    with pytest.raises(UserError, match="val/clip-0 is there already and is not overwritten: remove it"):
        write_got10k(Made(), tmp_path / "val")


def test_results_are_as_the_server_wants_them(tmp_path: Path) -> None:
    boxes = np.array([[0, 2.25, 6, 10], [1, 3.25, 6, 10]])
    write_got10k_result(tmp_path, "clip-0", boxes, np.array([0.0, 0.02]))
    folder = tmp_path / "clip-0"
    assert (folder / "clip-0_001.txt").read_text().splitlines()[1] == "2.0000,4.2500,6.0000,10.0000"
    assert np.loadtxt(folder / "clip-0_time.txt").tolist() == [0, 0.02]
    with pytest.raises(UserError, match=r"clip-0_001.txt is there already and is not overwritten"):
        write_got10k_result(tmp_path, "clip-0", boxes)
    with pytest.raises(ValueError, match=r"\(3,\) times for \(2,\) frames"):
        write_got10k_result(tmp_path, "clip-1", boxes, np.zeros(3))
    with pytest.raises(ValueError, match="must be finite"):
        result_lines(np.full((2, 4), np.nan))
