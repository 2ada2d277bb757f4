"""Chunks to LVSM's tree: what it writes, that it goes on after any end, and that no frame changes its number."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.images import decode
from bench.data.re10k import SceneRules, convert, open_re10k
from bench.data.re10k.tree import Tree
from bench.errors import UserError
from tests.data.re10k_data import clip, jpeg, write_evaluation, write_split


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_split(tmp_path / "source" / "train", [clip("b", 5), clip("a", 4, scene=2)], [clip("c", 3)])
    return tmp_path / "source"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.is_file()}


def test_the_tree_is_as_published(source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    done = convert(source, tmp_path / "out", "train", report=lambda _, now, total: told.append((now, total)))
    assert (done.scenes, done.frames, done.failed) == (3, 12, [])
    assert told == [(0, 2), (1, 2), (2, 2)]
    folder = (tmp_path / "out" / "train").resolve()
    assert (folder / "full_list.txt").read_text() == "".join(f"{folder}/metadata/{key}.json\n" for key in "abc")
    data = json.loads((folder / "metadata" / "a.json").read_text())
    assert data.keys() == {"scene_name", "frames"}
    assert data["scene_name"] == "a"
    frame = data["frames"][2]
    assert frame["image_path"] == f"{folder}/images/a/00002.png"
    assert np.array_equal(np.asarray(Image.open(frame["image_path"])), decode(jpeg((36, 64), 2, scene=2)))
    assert frame["fxfycxcy"] == pytest.approx([32, 32, 32, 18])
    assert np.allclose(frame["w2c"][:3], clip("a", 4)["cameras"][2, 6:].reshape(3, 4), atol=0)
    assert frame["w2c"][3] == [0, 0, 0, 1]


def test_what_is_there_is_not_converted_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(source, out, "train")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    again = convert(source, out, "train")
    assert (again.scenes, again.frames) == (3, 0)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == before


def test_a_conversion_that_was_killed_goes_on(source: Path, tmp_path: Path) -> None:
    """Killed for good in the middle of a clip, as by the system."""
    program = """
import os, sys
from pathlib import Path
from PIL import Image
from bench.data.re10k import convert
save, saved = Image.Image.save, []
def dying(self, path, **options):
    saved.append(path)
    if len(saved) == 7:
        os._exit(9)
    save(self, path, **options)
Image.Image.save = dying
convert(Path(sys.argv[1]), Path(sys.argv[2]), "train", workers=1)
"""
    command = [sys.executable, "-c", program, source, tmp_path / "out"]
    killed = subprocess.run(command, cwd=Path(__file__).resolve().parents[2], check=False)
    assert killed.returncode == 9
    folder = tmp_path / "out" / "train"
    assert [path.name for path in (folder / "metadata").glob("*.json")] == ["b.json"]
    assert (folder / "images" / ".a.tmp").is_dir()
    assert not (folder / "full_list.txt").exists()
    # The process died after the images of a clip were in place, before its JSON was.
    (folder / "images" / "c").mkdir()
    (folder / "images" / "c" / "00007.png").write_text("left behind")

    done = convert(source, tmp_path / "out", "train")
    assert (done.scenes, done.frames) == (3, 7)
    convert(source, tmp_path / "whole", "train")
    whole = {
        name: data.replace(str(tmp_path / "whole").encode(), str(tmp_path / "out").encode())
        for name, data in content(tmp_path / "whole").items()
    }
    assert content(tmp_path / "out") == whole
    assert not (folder / "images" / ".a.tmp").exists()


def test_a_frame_that_fails_leaves_a_gap_and_moves_no_other(tmp_path: Path) -> None:
    broken = clip("x", 40)
    broken["images"][2] = broken["images"][2][:150]
    nothing = clip("nothing", 2) | {"images": [torch.zeros(9, dtype=torch.uint8)] * 2}
    write_split(tmp_path / "source" / "test", [broken, nothing])
    done = convert(tmp_path / "source", tmp_path / "out", "test")
    assert sorted(done.failed) == ["nothing/00000", "nothing/00001", "x/00002"]
    assert (done.scenes, done.frames) == (1, 39)
    folder = tmp_path / "out" / "test"
    assert json.loads((folder / "metadata" / "x.json").read_text())["failed_frames"] == [2]
    assert not (folder / "images" / "nothing").exists()
    assert convert(tmp_path / "source", tmp_path / "out", "test").frames == 0

    evaluation = write_evaluation(tmp_path / "e.json", x=([5, 35], [6, 20, 30]))
    options: dict[str, Any] = {"image_size": 32, "cache_dir": tmp_path / "cache", "rules": SceneRules(shape=None)}
    split = open_re10k(tmp_path / "out", "test", evaluation_index=evaluation, **options)
    inputs, targets = split.choose_evaluation(np.array([0]), 2, 3)
    assert [split.sample_name(0, view) for view in targets[0]] == ["x/00006", "x/00020", "x/00030"]
    original = open_re10k(tmp_path / "source", "test", evaluation_index=evaluation, **options)
    there = original.load(np.array([0]), original.choose_evaluation(np.array([0]), 2, 3)[0])
    assert np.array_equal(split.load(np.array([0]), inputs).rgb, there.rgb)
    # A scene that needs the missing frame is counted, not shifted.
    evaluation = write_evaluation(tmp_path / "e.json", x=([1, 35], [6, 20, 30]))
    with pytest.raises(UserError, match="1 frames missing in the data"):
        open_re10k(tmp_path / "out", "test", evaluation_index=evaluation, **options)


def test_paths_of_another_machine_are_found_in_the_tree(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out", "train")
    (tmp_path / "out").rename(tmp_path / "moved")
    tree = Tree(tmp_path / "moved" / "train", tmp_path / "cache")
    assert [scene.key for scene in tree.index.scenes] == ["a", "b", "c"]
    assert np.array_equal(tree.image(tree.index.scenes[0], tree.index.frames[2]), decode(jpeg((36, 64), 2, scene=2)))


def test_images_that_lie_elsewhere_are_found_where_the_json_says(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out", "train")
    (tmp_path / "out" / "train" / "images").rename(tmp_path / "images")
    for path in (tmp_path / "out" / "train" / "metadata").glob("*.json"):
        path.write_text(path.read_text().replace(str(tmp_path / "out" / "train"), str(tmp_path)))
    tree = Tree(tmp_path / "out" / "train", tmp_path / "cache")
    assert np.array_equal(tree.image(tree.index.scenes[0], tree.index.frames[2]), decode(jpeg((36, 64), 2, scene=2)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "images" / "a" / "00000.png").unlink(), r"00000\.png is missing"),
        (lambda folder: (folder / "metadata" / "a.json").unlink(), r"a\.json is missing"),
        (lambda folder: (folder / "metadata" / "a.json").write_text("{"), r"a\.json does not describe a clip"),
        (lambda folder: (folder / "metadata" / "a.json").write_text('{"frames": []}'), r"a\.json does not describe"),
        (lambda folder: (folder / "full_list.txt").write_text("\n"), r"full_list\.txt names no clip"),
        (
            lambda folder: (folder / "metadata" / "a.json").write_text(
                (folder / "metadata" / "a.json").read_text().replace("00001.png", "1.png")
            ),
            r"must be named 00000\.png",
        ),
    ],
)
def test_a_damaged_tree_is_named(source: Path, tmp_path: Path, damage: Any, message: str) -> None:
    convert(source, tmp_path / "out", "train")
    damage(tmp_path / "out" / "train")
    with pytest.raises(UserError, match=message):
        Tree(tmp_path / "out" / "train", tmp_path / "cache")


def test_a_full_disk_is_one_line_and_what_is_done_is_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Image.Image.save

    def full(self: Image.Image, path: Path, **options: Any) -> None:
        if "/.a.tmp/" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(UserError, match=r"No space left on device; free some space and run again") as caught:
            convert(source, tmp_path / "out", "train", workers=1)
    assert "\n" not in str(caught.value)
    assert convert(source, tmp_path / "out", "train").frames == 7


def test_a_disk_that_will_be_full_is_refused_at_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10, 9, 1000))
    with pytest.raises(UserError, match="GiB free, but 2 chunks as PNG need at least"):
        convert(source, tmp_path / "out", "train")
    assert not list((tmp_path / "out").rglob("*.png"))


def test_two_conversions_into_one_tree_are_refused(source: Path, tmp_path: Path) -> None:
    def again(_: str, done: int, total: int) -> None:
        if done < total:
            with pytest.raises(UserError, match="another process is converting into"):
                convert(source, tmp_path / "out", "train")

    assert convert(source, tmp_path / "out", "train", report=again).scenes == 3


def test_a_key_that_would_leave_the_tree_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path / "source" / "train", [clip("../up", 2)])
    with pytest.raises(UserError, match="cannot be a file name"):
        convert(tmp_path / "source", tmp_path / "out", "train")
    with pytest.raises(UserError, match="split must be train or test, got 'validation'"):
        convert(tmp_path / "source", tmp_path / "out", "validation")
