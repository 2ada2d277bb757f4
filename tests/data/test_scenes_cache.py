"""The cache: same bytes whoever writes them, resumed, shared, and never silently wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from bench.data import rendered as rendered_module
from bench.data import shards as shards_module
from bench.data.scenes import SceneSpec, ShardedArray, open_split, prepare, split_folder
from bench.data.scenes import cache as cache_module
from bench.data.scenes import spec as spec_module
from bench.errors import UserError

SPEC = SceneSpec(
    image_size=16, train_scenes=7, validation_scenes=2, test_scenes=3, ood_scenes=2, train_views=2, test_views=3
)
FIELDS = cache_module.FIELDS


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Two training scenes a shard: four shards."""
    monkeypatch.setattr(spec_module, "IMAGES_PER_SHARD", 4)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


def prepared(tmp_path: Path, split: str = "train") -> Path:
    prepare(SPEC, [split], tmp_path, workers=1)
    return split_folder(SPEC, split, tmp_path)


class Renders:
    """Counts rendered shards and can be told to fail after some."""

    def __init__(self, monkeypatch, fail_after: int | None = None, error: BaseException | None = None):
        self.numbers: list[int] = []
        real = cache_module.render_shard

        def render_shard(spec, split, scenes, folder, number):
            if fail_after is not None and len(self.numbers) >= fail_after:
                raise error or KeyboardInterrupt
            self.numbers.append(number)
            return real(spec, split, scenes, folder, number)

        monkeypatch.setattr(cache_module, "render_shard", render_shard)


def test_shapes_and_types(tmp_path):
    for split, scenes, views in (("train", 7, 2), ("test", 3, 3), ("ood", 2, 3)):
        prepared(tmp_path, split)
        data = open_split(SPEC, split, tmp_path)
        assert len(data) == scenes
        assert data.rgb.shape == (scenes, views, 16, 16, 3)
        assert data.rgb.dtype == np.uint8
        assert data.depth.shape == data.instance.shape == data.classes.shape == (scenes, views, 16, 16)
        assert (data.depth.dtype, data.instance.dtype, data.classes.dtype) == (np.float16, np.uint8, np.uint8)
        assert (data.c2w.shape, data.c2w.dtype) == ((scenes, views, 4, 4), np.float32)
        assert (data.intrinsics.shape, data.intrinsics.dtype) == ((scenes, views, 4), np.float32)
    assert {path.name.split("-")[0] for path in (tmp_path / "scenes-v1").iterdir()} == {"train", "test", "ood"}


def test_same_bytes_for_any_number_of_workers(tmp_path):
    prepare(SPEC, ["train"], tmp_path / "one", workers=1)
    prepare(SPEC, ["train"], tmp_path / "two", workers=2)
    one, two = (files_of(split_folder(SPEC, "train", tmp_path / name)) for name in ("one", "two"))
    assert len(one) == 4 * len(FIELDS) + 1
    assert one == two


def test_nothing_is_rendered_twice(tmp_path, monkeypatch):
    prepared(tmp_path)
    renders = Renders(monkeypatch)
    prepared(tmp_path)
    prepare(SceneSpec(**{**SPEC.__dict__, "test_scenes": 50}), ["train"], tmp_path, workers=1)
    assert renders.numbers == []


def test_another_spec_has_another_folder(tmp_path):
    folders = {split_folder(SPEC, split, tmp_path) for split in ("train", "validation", "test", "ood")}
    for change in ({"seed": 1}, {"image_size": 32}, {"supersampling": 1}, {"train_scenes": 8}, {"train_views": 3}):
        folders.add(split_folder(SceneSpec(**{**SPEC.__dict__, **change}), "train", tmp_path))
    assert len(folders) == 9


def test_interrupted_run_is_resumed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        Renders(patch, fail_after=2)
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path)
    with pytest.raises(UserError, match=r"holds 2 of 4 shards; prepare train again"):
        open_split(SPEC, "train", tmp_path)
    seen: list[tuple[str, int, int]] = []
    renders = Renders(monkeypatch)
    prepare(SPEC, ["train"], tmp_path, workers=1, progress=lambda *report: seen.append(report))
    assert renders.numbers == [2, 3]
    assert [done for _, done, _ in seen] == [4, 6, 7]
    assert {total for *_, total in seen} == {7}
    prepare(SPEC, ["train"], tmp_path / "whole", workers=1)
    assert files_of(split_folder(SPEC, "train", tmp_path)) == files_of(split_folder(SPEC, "train", tmp_path / "whole"))


CONCURRENT = """
import sys
from pathlib import Path
from bench.data.scenes import SceneSpec, cache, prepare, spec
spec.IMAGES_PER_SHARD = 4
real = cache.render_shard
def counted(*args):
    print("rendered", args[-1])
    return real(*args)
cache.render_shard = counted
print("ready", flush=True)
sys.stdin.readline()
prepare(SceneSpec(**{spec!r}), ["train"], Path(sys.argv[1]), workers=1)
assert "torch" not in sys.modules
"""


def test_two_processes_at_once(tmp_path):
    """Both return with a whole split, each shard rendered once, and rendering imports no torch."""
    command = [sys.executable, "-c", CONCURRENT.replace("{spec!r}", repr(dict(SPEC.__dict__))), str(tmp_path)]
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = [process.communicate("go\n", timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted("".join(outputs).split("\n")[:-1]) == [f"rendered {n}" for n in range(4)]
    assert len(open_split(SPEC, "train", tmp_path)) == 7


def test_corrupted_shard_is_an_error_and_rendered_again_once_it_is_deleted(tmp_path, monkeypatch):
    folder = prepared(tmp_path)
    path = folder / "shard-0001-rgb.npy"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    open_split(SPEC, "train", tmp_path, verify=False)  # sizes are right
    with pytest.raises(
        UserError, match=r"shard-0001-rgb.npy does not match its SHA-256.*; delete .*shard-0001-rgb.npy"
    ):
        open_split(SPEC, "train", tmp_path)
    renders = Renders(monkeypatch)
    with pytest.raises(UserError, match=r"shard-0001-rgb.npy does not match its SHA-256"):
        prepared(tmp_path)
    assert renders.numbers == []
    path.unlink()
    prepared(tmp_path)
    assert renders.numbers == [1]
    assert path.read_bytes() == good
    assert len(open_split(SPEC, "train", tmp_path)) == 7


def test_truncated_shard_is_an_error_and_a_deleted_one_is_rendered_again(tmp_path):
    folder = prepared(tmp_path)
    good = files_of(folder)
    path = folder / "shard-0002-depth.npy"
    path.write_bytes(good[path.name][:100])
    with pytest.raises(UserError, match=r"shard-0002-depth.npy has 100 bytes instead of 2176; delete .* and run again"):
        open_split(SPEC, "train", tmp_path, verify=False)
    path.unlink()
    with pytest.raises(UserError, match=r"shard-0002-depth.npy is missing"):
        open_split(SPEC, "train", tmp_path, verify=False)
    prepared(tmp_path)
    assert files_of(folder) == good


def edit(manifest: dict) -> None:
    manifest["shards"]["0"]["rgb"]["sha256"] = "0" * 64


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "cannot be read"),
        (edit, "was changed after it was written"),
    ],
)
def test_broken_manifest_is_refused(tmp_path, content, complaint):
    folder = prepared(tmp_path)
    path = folder / "manifest.json"
    if callable(content):
        manifest = json.loads(path.read_text())
        content(manifest)
        content = json.dumps(manifest)
    path.write_text(content)
    for attempt in (lambda: open_split(SPEC, "train", tmp_path), lambda: prepared(tmp_path)):
        with pytest.raises(
            UserError, match=rf"manifest.json {complaint}.*; delete .*{folder.name} and run again"
        ) as info:
            attempt()
        assert "\n" not in str(info.value)


def test_manifest_of_other_scenes_is_refused(tmp_path):
    folder = prepared(tmp_path)
    other = SceneSpec(**{**SPEC.__dict__, "seed": 5})
    folder.rename(split_folder(other, "train", tmp_path))
    with pytest.raises(UserError, match="describes other scenes than was asked for"):
        open_split(other, "train", tmp_path)


def test_manifest_holds_the_spec_and_the_sums(tmp_path):
    manifest = json.loads((prepared(tmp_path) / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert manifest["spec"]["seeds"] == [0, 7]
    assert {"version", "image_size", "views", "supersampling", "seed", "split"} <= set(manifest["spec"])
    assert len(manifest["photographs"]["astronaut"]) == 64
    assert set(manifest["shards"]["3"]) == set(FIELDS)


def test_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    """The disk fills up in the middle of the third shard."""
    files = 0
    real = os.fsync

    def fsync(descriptor):
        nonlocal files
        files += 1
        if files > 2 * (len(FIELDS) + 1) + 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(shards_module.os, "fsync", fsync)
        with pytest.raises(UserError, match=r"cannot write .*shard-0002-\w+.npy: no space left; free some") as info:
            prepared(tmp_path)
    assert "\n" not in str(info.value)
    folder = split_folder(SPEC, "train", tmp_path)
    assert not list(folder.glob("*.tmp"))
    assert not list(folder.glob(".*.tmp"))
    renders = Renders(monkeypatch)
    prepared(tmp_path)
    assert renders.numbers == [2, 3]
    assert len(open_split(SPEC, "train", tmp_path)) == 7


def test_too_small_a_disk_is_refused_before_rendering(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    renders = Renders(monkeypatch)
    with pytest.raises(UserError, match=r"train needs 0 MiB in .*, but only 0 MiB are free"):
        prepared(tmp_path)
    assert renders.numbers == []


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    def version(package: str) -> str:
        if package == "embreex":
            raise PackageNotFoundError
        return "1"

    monkeypatch.setattr(rendered_module, "version", version)
    with pytest.raises(
        UserError, match=r"scenes cannot be rendered: embreex is not installed; run pip install embreex"
    ):
        prepared(tmp_path)


def test_cache_folder_that_is_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(UserError, match=r"cannot make .*; choose another cache folder"):
        prepared(path)


def test_missing_split_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"validation is not in the cache .*; prepare it first"):
        open_split(SPEC, "validation", tmp_path)
    with pytest.raises(UserError, match="split must be one of train, validation, test, ood, got 'val'"):
        prepare(SPEC, ["val"], tmp_path)
    with pytest.raises(UserError, match="workers must be >= 1, got 0"):
        prepare(SPEC, ["train"], tmp_path, workers=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("image_size", 4), ("train_scenes", 0), ("test_views", 1), ("seed", -1), ("supersampling", 2.0)],
)
def test_spec_names_the_bad_field(field, value):
    with pytest.raises(UserError, match=rf"scenes.{field} must be a whole number from \d+ to \d+, got {value}"):
        SceneSpec(**{field: value})


def test_sharded_array_reads_like_one_array(tmp_path):
    whole = np.arange(7 * 3 * 2).reshape(7, 3, 2)
    for number, part in enumerate((whole[:3], whole[3:4], whole[4:])):
        np.save(tmp_path / f"{number}.npy", part)
    array = ShardedArray([tmp_path / f"{number}.npy" for number in range(3)])
    assert (len(array), array.shape, array.dtype) == (7, whole.shape, whole.dtype)
    for key in (0, -1, np.int64(5), slice(None), slice(2, 6, 3), [6, 0, 3, 3], np.array([[1, 5], [4, 0]]), []):
        expected = whole[key] if not isinstance(key, list) else whole[np.array(key, dtype=int)]
        np.testing.assert_array_equal(array[key], expected)
    rows, columns = np.array([[6], [0], [3]]), np.array([[0, 2], [1, 1], [2, 0]])
    np.testing.assert_array_equal(array[rows, columns], whole[rows, columns])
    np.testing.assert_array_equal(array[4, 1], whole[4, 1])
    np.testing.assert_array_equal(np.asarray(array), whole)
    for bad in (7, -8, [0, 7], (0, 3), (0, 0, 0), 1.5, np.ones(7, bool)):
        with pytest.raises(IndexError):
            array[bad]
    copied = array[:]
    copied[:] = 0
    np.testing.assert_array_equal(array[:], whole)
