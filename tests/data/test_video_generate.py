"""The cache of clips: same bytes whoever writes them, resumed, shared, never silently wrong; and its two ways of reading."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from bench.data import shards as shards_module
from bench.data.cache_folder import sole_writer
from bench.data.video import Boxes, VideoSpec, generate, open_boxed, open_masked, prepare, split_folder
from bench.data.video.generate import FIELDS, GeneratedVideos
from bench.data.video.render import make_clip
from bench.errors import UserError

SPEC = VideoSpec(
    image_size=32,
    frames=8,
    train_clips=7,
    validation_clips=2,
    test_clips=5,
    shifted_clips=2,
    distractors=1,
    late_objects=0.5,
)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("bench.data.video.spec.CLIPS_PER_SHARD", 2)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """A cache that holds the splits train and test; tests do not write to it."""
    folder = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.data.video.spec.CLIPS_PER_SHARD", 2)
        prepare(SPEC, folder, splits=["train", "test"])
    return folder


def files_of(cache_dir: Path, split: str = "train") -> dict[str, bytes]:
    folder = split_folder(SPEC, split, cache_dir)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


@pytest.fixture
def cache(reference, tmp_path) -> Path:
    """A copy of the training split that a test may damage."""
    target = split_folder(SPEC, "train", tmp_path)
    target.mkdir(parents=True)
    for name, content in files_of(reference).items():
        (target / name).write_bytes(content)
    return tmp_path


class Shards:
    """Notes which shards are made and can be told to fail after some."""

    def __init__(self, monkeypatch, fail_after: int | None = None):
        self.numbers: list[int] = []
        real = generate._make_shard

        def make(spec, split, clips, folder, number):
            if fail_after is not None and len(self.numbers) >= fail_after:
                raise KeyboardInterrupt
            self.numbers.append(number)
            return real(spec, split, clips, folder, number)

        monkeypatch.setattr(generate, "_make_shard", make)


def test_all_splits_by_default(tmp_path):
    tiny = dataclasses.replace(SPEC, train_clips=1, validation_clips=1, test_clips=1, shifted_clips=1)
    reports: list[tuple[str, int, int]] = []
    prepare(tiny, tmp_path, lambda *report: reports.append(report))
    assert [len(open_masked(tiny, split, tmp_path)) for split in ("train", "validation", "test", "shifted")] == [1] * 4
    assert reports[:2] == [("generating train clips", 0, 1), ("generating train clips", 1, 1)]
    assert len({open_masked(tiny, s, tmp_path).fingerprint for s in ("train", "validation", "test", "shifted")}) == 4


def test_masked_clips_are_what_was_made(reference):
    videos = open_masked(SPEC, "train", reference)
    assert isinstance(videos, GeneratedVideos)
    assert isinstance(videos._rgb._parts[0], np.memmap)
    assert len(videos) == 7
    late = 0
    for number in (6, 0, 3):
        clip, info = make_clip(SPEC, "train", number), videos.info(number)
        which = np.array([7, 0, 3])
        np.testing.assert_array_equal(videos.frames(number, which), clip.rgb[which])
        np.testing.assert_array_equal(videos.masks(number, which), clip.masks[which])
        np.testing.assert_array_equal(videos.amodal[number], clip.amodal)
        assert (info.name, info.frames, info.height, info.width) == (f"clip-{number:05d}", 8, 32, 32)
        assert info.first_frames == tuple(clip.start)
        assert info.object_ids == (1, 2)
        assert info.annotated.tolist() == [True] * 8
        assert info.factors == SPEC.clip_factors("train", number)
        late += clip.start.any()
    assert late, "some clip has an object that enters late"
    assert any("procedural" in notice for notice in videos.notices)
    assert all("\n" not in notice for notice in videos.notices)


def test_boxed_clips_follow_the_largest_target(reference):
    videos = open_boxed(SPEC, "test", reference)
    assert len(videos) == 5
    hidden = 0
    for number in range(5):
        clip, boxes, info = make_clip(SPEC, "test", number), videos.boxes(number), videos.info(number)
        assert isinstance(boxes, Boxes)
        target = info.object_ids[0] - 1
        assert clip.areas[0, target, 1] == clip.areas[0, :, 1].max()
        assert (info.first_frames, len(info.object_ids)) == ((0,), 1)
        np.testing.assert_array_equal(boxes.xywh, clip.boxes[:, target])
        np.testing.assert_allclose(boxes.visible, clip.areas[:, target, 0] / clip.areas[:, target, 1], rtol=1e-6)
        assert boxes.present.all()
        assert {boxes.xywh.dtype, boxes.visible.dtype} == {np.dtype("float32")}
        hidden += boxes.visible.min() < 0.1
        np.testing.assert_array_equal(videos.frames(number, np.arange(8)), clip.rgb)
    assert hidden == 1, "the clip with occlusion, and no other, hides the target that is tracked"


def test_nothing_is_generated_twice(cache, monkeypatch):
    made = Shards(monkeypatch)
    reports: list[tuple[str, int, int]] = []
    prepare(SPEC, cache, lambda *report: reports.append(report), splits=["train"])
    assert (made.numbers, reports) == ([], [])


def test_another_spec_has_another_folder(tmp_path):
    changes = {
        "image_size": 64,
        "frames": 10,
        "objects": 3,
        "factors": ("plain",),
        "distractors": 2,
        "occlusion_frames": 1,
        "drift_rate": 0.5,
        "late_objects": 0.1,
        "jpeg_quality": 90,
        "seed": 1,
        "train_clips": 8,
    }
    folders = {split_folder(dataclasses.replace(SPEC, **{k: v}), "train", tmp_path) for k, v in changes.items()}
    assert len(folders | {split_folder(SPEC, "train", tmp_path)}) == len(changes) + 1
    for same in ({"test_clips": 9}, {"drift_rate": 1}, {"factors": list(SPEC.factors)}):
        assert split_folder(dataclasses.replace(SPEC, **same), "train", tmp_path) == split_folder(
            SPEC, "train", tmp_path
        )


def test_more_clips_begin_like_fewer(reference, tmp_path):
    fewer = dataclasses.replace(SPEC, train_clips=3)
    prepare(fewer, tmp_path, splits=["train"])
    every = np.arange(8)
    few, many = open_masked(fewer, "train", tmp_path), open_masked(SPEC, "train", reference)
    np.testing.assert_array_equal(few.frames(2, every), many.frames(2, every))
    assert few.fingerprint != many.fingerprint


def test_interrupted_run_is_resumed(reference, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        Shards(patch, fail_after=2)
        with pytest.raises(KeyboardInterrupt):
            prepare(SPEC, tmp_path, splits=["train"])
    with pytest.raises(UserError, match=r"holds 2 of 4 shards; prepare train again"):
        open_masked(SPEC, "train", tmp_path)
    reports: list[tuple[str, int, int]] = []
    made = Shards(monkeypatch)
    prepare(SPEC, tmp_path, lambda *report: reports.append(report), splits=["train"])
    assert made.numbers == [2, 3]
    assert reports == [("generating train clips", done, 7) for done in (4, 6, 7)]
    assert files_of(tmp_path) == files_of(reference)
    one, two = (open_masked(SPEC, "train", folder) for folder in (tmp_path, reference))
    assert one.fingerprint == two.fingerprint


KILLED = """
import sys
from pathlib import Path
from bench.data.video import VideoSpec, prepare, spec
spec.CLIPS_PER_SHARD = 2
prepare(VideoSpec(**{spec!r}), Path(sys.argv[1]), splits=["train"])
assert "torch" not in sys.modules
"""


def test_killed_run_is_resumed_and_two_processes_share_the_work(reference, tmp_path):
    command = [sys.executable, "-c", KILLED.replace("{spec!r}", repr(dict(SPEC.__dict__))), str(tmp_path)]
    manifest = split_folder(SPEC, "train", tmp_path) / "manifest.json"
    process = subprocess.Popen(command, cwd=ROOT)
    while not manifest.is_file() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    both = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    assert files_of(tmp_path) == files_of(reference)


def test_corrupted_shard_is_an_error_and_made_again_once_it_is_deleted(cache, monkeypatch):
    path = split_folder(SPEC, "train", cache) / "shard-0001-masks.npy"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    open_masked(SPEC, "train", cache, verify=False)  # sizes are right
    made = Shards(monkeypatch)
    for attempt in (open_masked, open_boxed):
        with pytest.raises(UserError, match=r"shard-0001-masks.npy does not match its SHA-256.*; delete .*shard-0001"):
            attempt(SPEC, "train", cache)
    with pytest.raises(UserError, match=r"shard-0001-masks.npy does not match its SHA-256"):
        prepare(SPEC, cache, splits=["train"])
    assert made.numbers == []
    path.write_bytes(good[:50])
    with pytest.raises(UserError, match=r"shard-0001-masks.npy has 50 bytes instead of"):
        open_masked(SPEC, "train", cache, verify=False)
    path.unlink()
    prepare(SPEC, cache, splits=["train"])
    assert made.numbers == [1]
    assert path.read_bytes() == good


def test_broken_manifest_is_refused(cache):
    path = split_folder(SPEC, "train", cache) / "manifest.json"
    good = path.read_text()
    for content, complaint in (("{", "cannot be read"), (good.replace("0001-rgb", "0000-rgb"), "was changed after")):
        path.write_text(content)
        for attempt in (lambda: open_masked(SPEC, "train", cache), lambda: prepare(SPEC, cache, splits=["train"])):
            with pytest.raises(
                UserError, match=rf"video: .*manifest.json {complaint}.*; delete .* and run again"
            ) as info:
                attempt()
            assert "\n" not in str(info.value)


def test_clips_of_another_spec_are_refused(cache):
    other = dataclasses.replace(SPEC, seed=5)
    split_folder(SPEC, "train", cache).rename(split_folder(other, "train", cache))
    with pytest.raises(UserError, match="describes other video than was asked for"):
        open_masked(other, "train", cache)


def test_manifest_names_what_made_the_clips(reference):
    manifest = json.loads((split_folder(SPEC, "train", reference) / "manifest.json").read_text())
    assert manifest["software"] == {"numpy": np.__version__}
    assert set(manifest["shards"]["3"]) == set(FIELDS)


def test_who_waits_is_told_for_what(tmp_path):
    def stop(text: str, done: int, total: int) -> None:
        raise InterruptedError(text)

    with (
        sole_writer(split_folder(SPEC, "train", tmp_path), "tests"),
        pytest.raises(InterruptedError, match=r"^waiting for another process that generates train clips$"),
    ):
        prepare(SPEC, tmp_path, stop, ["train"])


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    def version(package: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr("bench.data.rendered.version", version)
    with pytest.raises(UserError, match=r"^video cannot be generated: [\w-]+ is not installed; run pip install"):
        prepare(SPEC, tmp_path, splits=["train"])


def test_full_disk_leaves_nothing_half_written(reference, tmp_path, monkeypatch):
    """The disk fills up in the middle of the third shard."""
    files, real = 0, os.fsync

    def fsync(descriptor):
        nonlocal files
        files += 1
        if files > 2 * (len(FIELDS) + 1) + 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(shards_module.os, "fsync", fsync)
        with pytest.raises(UserError, match=r"cannot write .*shard-0002-\w+.npy: no space left; free some") as info:
            prepare(SPEC, tmp_path, splits=["train"])
    assert "\n" not in str(info.value)
    assert not list(split_folder(SPEC, "train", tmp_path).glob(".*.tmp"))
    made = Shards(monkeypatch)
    prepare(SPEC, tmp_path, splits=["train"])
    assert made.numbers == [2, 3]
    assert files_of(tmp_path) == files_of(reference)


def test_too_small_a_disk_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    made = Shards(monkeypatch)
    with pytest.raises(UserError, match=r"video: train needs 0 MiB in .*, but only 0 MiB are free"):
        prepare(SPEC, tmp_path, splits=["train"])
    assert made.numbers == []


def test_missing_split_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"video: test is not in the cache .*; prepare it first"):
        open_masked(SPEC, "test", tmp_path)
    with pytest.raises(UserError, match="split must be one of train, validation, test, shifted, got 'ood'"):
        prepare(SPEC, tmp_path, splits=["ood"])


def test_the_code_on_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/video-data.md").read_text(), re.DOTALL)
    exec(compile(code, "video-data.md", "exec"), {})
    factors, masks, visible = capsys.readouterr().out.splitlines()[-1].rsplit(" ", 2)
    assert (factors, masks) == ("('occlusion',)", "2")
    assert float(visible) < 0.1
