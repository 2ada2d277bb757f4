"""Chunks are read without torch and without running them; the index is made once, and again when the data change."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.data.re10k import archive
from bench.data.re10k.archive import Span, read_archive, read_array, read_bytes
from bench.data.re10k.chunks import Chunks
from bench.errors import UserError
from tests.data.re10k_data import CHUNK, clip, write_split


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=8),
    st.sampled_from([torch.uint8, torch.int32, torch.int64, torch.float32, torch.float64]),
)
def test_every_tensor_is_found_where_it_lies(tmp_path_factory: Any, lengths: list[int], dtype: torch.dtype) -> None:
    tensors = [(torch.arange(length) % 251).to(dtype) for length in lengths]
    whole = torch.arange(12).to(dtype).reshape(3, 4)
    path = save(
        tmp_path_factory.mktemp("archive") / "a.torch", [{"key": "x", "n": 3, "t": tensors, "part": whole[1:, :]}]
    )
    (read,) = read_archive(path)
    assert (read["key"], read["n"]) == ("x", 3)
    for span, tensor in zip(read["t"], tensors, strict=True):
        assert np.array_equal(read_array(path, span), tensor.numpy())
    assert np.array_equal(read_array(path, read["part"]), whole[1:].numpy())


def test_records_that_lie_elsewhere_than_torch_puts_them_are_found(tmp_path: Path) -> None:
    """A repacked file: no padding, no descriptors."""
    path = save(tmp_path / "a.torch", [torch.arange(9), torch.arange(5)])
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b.torch", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    spans = read_archive(tmp_path / "b.torch")
    assert [read_array(tmp_path / "b.torch", span).tolist() for span in spans] == [list(range(9)), list(range(5))]


class Payload:
    """Runs a command when a careless reader loads it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def forge(path: Path, structure: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", structure)
        file.writestr("archive/data/0", b"0123")
    return path


@pytest.mark.parametrize(
    "structure",
    [
        pickle.dumps(torch.nn.Linear),  # any other name
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(tR.",  # no arguments
        b"ccollections\nOrderedDict\n}S'x'\nI1\nsb.",
        b"\x80\x02}q\x00",  # ends too early
        b"",
    ],
)
def test_what_is_not_plain_data_is_refused_in_one_line(tmp_path: Path, structure: bytes) -> None:
    with pytest.raises(UserError, match=r"forged\.torch is truncated or not a torch file of tensors") as caught:
        read_archive(forge(tmp_path / "forged.torch", structure))
    assert "\n" not in str(caught.value)


def test_no_code_is_run(tmp_path: Path) -> None:
    bomb = pickle.dumps(Payload(f"touch {tmp_path / 'ran'}"), protocol=2)
    with pytest.raises(UserError, match=r"it asks for (posix|nt)\.system"):
        read_archive(forge(tmp_path / "forged.torch", bomb))
    assert not (tmp_path / "ran").exists()


def test_a_pickle_cannot_change_the_reader(tmp_path: Path) -> None:
    good = save(tmp_path / "good.torch", [torch.arange(3)])
    for state in (b"}S'__name__'\nS'x'\ns", b"(N}S'__defaults__'\n(I1\nI2\ntst"):
        structure = b"(lp0\nctorch._utils\n_rebuild_tensor_v2\n" + state + b"ba."
        read_archive(forge(tmp_path / "forged.torch", structure))
    assert not vars(archive._Unpickler._tensor)
    assert archive._Unpickler._tensor.__defaults__ is None
    assert read_array(good, read_archive(good)[0]).tolist() == [0, 1, 2]


def test_a_tensor_that_reaches_out_of_its_record_is_refused(tmp_path: Path) -> None:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return value[1:] if isinstance(value, tuple) and value[:1] == ("pid",) else None

    for offset, shape, stride in [(0, (5,), (1,)), (1, (4,), (1,)), (-1, (2,), (1,)), (0, (2, 2), (1, 2))]:
        buffer = io.BytesIO()

        class Tensor:
            def __reduce__(self) -> Any:
                storage = ("pid", "storage", torch.ByteStorage, "0", "cpu", 4)
                return torch._utils._rebuild_tensor_v2, (storage, offset, shape, stride, False, None)  # noqa: B023

        Pickler(buffer, 2).dump(Tensor())
        with pytest.raises(UserError, match=r"does not fit its record|not contiguous"):
            read_archive(forge(tmp_path / "forged.torch", buffer.getvalue()))


def test_other_files_and_missing_ones_are_named(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "old.torch", _use_new_zipfile_serialization=False)
    (tmp_path / "text.torch").write_text("hello")
    for name in ("old.torch", "text.torch"):
        with pytest.raises(UserError, match=f"{name} is truncated or not a torch file"):
            read_archive(tmp_path / name)
    with pytest.raises(UserError, match=r"none\.torch is missing"):
        read_archive(tmp_path / "none.torch")


def test_a_read_behind_the_end_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    assert read_bytes(tmp_path / "file", 2, 3) == b"234"
    with pytest.raises(UserError, match="file ends before byte 12"):
        read_bytes(tmp_path / "file", 8, 4)
    assert Span("<f4", (2, 3), 0).length == 24


# --- the index ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_split(tmp_path / "data" / "train", [clip("b", 4), clip("d", 3)], [clip("a", 5)])


def test_the_index_is_made_once_and_holds_all_clips_by_key(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    first = Chunks(folder, tmp_path / "cache", report=lambda _, done, total: told.append((done, total)))
    assert [(s.key, s.source, s.frames, s.shape) for s in first.index.scenes] == [
        ("a", "000001.torch", 5, (36, 64)),
        ("b", CHUNK, 4, (36, 64)),
        ("d", CHUNK, 3, (36, 64)),
    ]
    assert told[0] == (0, 2)
    assert told[-1] == (2, 2)
    assert not list((tmp_path / "cache").rglob("part-*"))

    monkeypatch.setattr(archive.zipfile, "ZipFile", None)  # nothing is opened any more
    again = Chunks(folder, tmp_path / "cache")
    assert again.index.scenes == first.index.scenes
    assert np.array_equal(again.index.frames, first.index.frames)
    assert np.array_equal(pickle.loads(pickle.dumps(again.index)).frames, first.index.frames)
    assert len(pickle.dumps(again.index)) < again.index.frames.nbytes + 1000


def test_a_changed_chunk_is_read_again(folder: Path, tmp_path: Path) -> None:
    before = Chunks(folder, tmp_path / "cache").index
    torch.save([clip("b", 6)], folder / CHUNK)
    after = Chunks(folder, tmp_path / "cache").index
    assert [scene.frames for scene in before.scenes] == [5, 4, 3]
    assert [(scene.key, scene.frames) for scene in after.scenes] == [("a", 5), ("b", 6)]


def test_an_index_that_was_interrupted_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = archive.read_archive

    def reading(path: Path) -> Any:
        if path.name == "000001.torch" and len(read) == 1:
            raise KeyboardInterrupt
        read.append(path.name)
        return real(path)

    monkeypatch.setattr("bench.data.re10k.chunks.read_archive", reading)
    with pytest.raises(KeyboardInterrupt):
        Chunks(folder, tmp_path / "cache", workers=1)
    monkeypatch.setattr("bench.data.re10k.chunks.read_archive", lambda path: read.append(path.name) or real(path))
    assert len(Chunks(folder, tmp_path / "cache", workers=1).index.scenes) == 3
    assert read == [CHUNK, "000001.torch"]


def test_a_truncated_chunk_is_named(folder: Path, tmp_path: Path) -> None:
    with open(folder / CHUNK, "r+b") as file:
        file.truncate((folder / CHUNK).stat().st_size - 100)
    with pytest.raises(UserError, match=rf"{CHUNK} is truncated or not a torch file"):
        Chunks(folder, tmp_path / "cache")


def test_a_chunk_cut_short_after_it_was_indexed_is_named_with_the_frame(folder: Path, tmp_path: Path) -> None:
    chunks = Chunks(folder, tmp_path / "cache")
    with open(folder / CHUNK, "r+b") as file:
        file.truncate(100)
    with pytest.raises(UserError, match=rf"{CHUNK} ends before byte"):
        chunks.image(chunks.index.scenes[1], chunks.index.frames[5])


def test_a_missing_chunk_or_index_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / CHUNK).unlink()
    with pytest.raises(UserError, match=rf"{CHUNK} is missing: .* is not complete"):
        Chunks(folder, tmp_path / "cache")
    (folder / "index.json").write_text('{"a": "../elsewhere.torch"}')
    with pytest.raises(UserError, match=r"index\.json cannot be read \(it must map scenes to files beside it\)"):
        Chunks(folder, tmp_path / "cache")
    (folder / "index.json").unlink()
    with pytest.raises(UserError, match=r"index\.json is missing"):
        Chunks(folder, tmp_path / "cache")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cameras": torch.zeros(4, 17)}, r"scene b has 4 images and cameras \[4, 17\]"),
        ({"cameras": torch.zeros(3, 18)}, r"scene b has 4 images and cameras \[3, 18\]"),
        ({"cameras": torch.zeros(4, 18)}, "scene b has a camera that is not finite or has no focal length"),
        ({"cameras": torch.ones(4, 18)}, "scene b has a pose that is no rotation and translation"),
        ({"cameras": clip("b", 4)["cameras"] * torch.tensor([1.0] * 6 + [-1.0] * 12)}, "a pose that is no rotation"),
        ({"cameras": torch.full((4, 18), torch.nan)}, "scene b has a camera that is not finite"),
        ({"images": []}, "scene b has 0 images"),
        ({"images": None}, "TypeError"),
    ],
)
def test_a_clip_that_is_none_is_named(tmp_path: Path, change: dict, message: str) -> None:
    folder = write_split(tmp_path / "train", [{**clip("b", 4), **change}])
    with pytest.raises(UserError, match=rf"{CHUNK}.*{message}"):
        Chunks(folder, tmp_path / "cache")
