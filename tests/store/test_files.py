from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import UserError
from bench.store import files
from bench.store.files import LineFile, read_json, read_lines, sha256, write_bytes, write_json, write_manifest


def full_disk(*_: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.json"
    write_json(path, {"b": [1, 2.5, None, "ü"]})
    assert read_json(path) == {"b": [1, 2.5, None, "ü"]}
    write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [item.name for item in path.parent.iterdir()] == ["a.json"], "no temporary file stays"


@pytest.mark.parametrize("broken", ["fsync", "replace", "open"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    path = tmp_path / "a.json"
    write_json(path, "old")
    monkeypatch.setattr(
        *{"fsync": (os, "fsync"), "replace": (Path, "replace"), "open": (Path, "open")}[broken], full_disk
    )
    with pytest.raises(UserError, match="the disk is full; free some space"):
        write_json(path, "new")
    monkeypatch.undo()
    assert read_json(path) == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_a_write_stopped_at_any_point_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    path = tmp_path / "a.json"
    write_json(path, "old")
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(*((os, name) if name == "fsync" else (Path, name)), killed)
            with pytest.raises(Killed):
                write_json(path, "new")
        assert read_json(path) == "old"


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/a\.json: cannot be written") as caught:
        write_json(tmp_path / "file" / "a.json", 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_json_has_no_nan(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", value)
    assert not (tmp_path / "a.json").exists()


def test_reading_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json: is missing"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"a\.json: cannot be read as JSON .*damaged"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="damaged"):
        read_json(tmp_path / "a.json")


records = st.lists(
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
        max_size=3,
    ),
    max_size=6,
)


@given(lines=records, cut=st.integers(0, 10_000))
def test_a_log_cut_at_any_byte_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list, cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    log = LineFile(path)
    for line in lines:
        log.append(line)
    log.close()
    whole = path.read_bytes()
    assert read_lines(path) == lines
    left = whole[: min(cut, len(whole))]
    path.write_bytes(left)
    kept = read_lines(path)
    assert kept == lines[: len(kept)]
    assert left.count(b"\n") <= len(kept) <= left.count(b"\n") + 1
    # whoever appends next does not join the torn line
    log = LineFile(path)
    log.append({"next": 1})
    log.close()
    assert read_lines(path) == [*lines[: left.count(b"\n")], {"next": 1}]


def test_a_damaged_line_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(UserError, match=r"events\.jsonl:2: is damaged"):
        read_lines(path)
    path.write_text('{"step": 1}\n{"step"\n')
    with pytest.raises(UserError, match=r"events\.jsonl:2: is damaged"):
        read_lines(path)


def test_numbers_that_json_lacks_become_text(tmp_path: Path) -> None:
    log = LineFile(tmp_path / "events.jsonl")
    log.append({"loss": math.nan, "deep": [{"x": -math.inf}, 1.5]})
    log.close()
    assert read_lines(tmp_path / "events.jsonl") == [{"loss": "nan", "deep": [{"x": "-inf"}, 1.5]}]
    assert math.isnan(float("nan"))


def test_keeping_part_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = LineFile(path)
    for step in range(4):
        log.append({"step": step})
    log.close()
    log = LineFile(path, keep=read_lines(path)[:2])
    log.append({"step": "next"})
    log.close()
    log.close()
    assert [record["step"] for record in read_lines(path)] == [0, 1, "next"]


def test_each_line_reaches_the_system_at_once(tmp_path: Path) -> None:
    log = LineFile(tmp_path / "events.jsonl")
    log.append({"step": 1})
    assert read_lines(tmp_path / "events.jsonl") == [{"step": 1}]
    log.close()


class FillingDisk(io.RawIOBase):
    """Takes the first bytes of a line and no more, as a disk does that fills up; then nothing at all."""

    def __init__(self, path: Path, room: int) -> None:
        self._file, self.room = path.open("ab", buffering=0), room

    def write(self, content: Any) -> int:
        if not self.room:
            full_disk()
        written = self._file.write(content[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 5])
def test_a_disk_that_fills_up_is_an_error_and_the_log_goes_on_afterwards(tmp_path: Path, room: int) -> None:
    path = tmp_path / "events.jsonl"
    log = LineFile(path)
    log.append({"step": 1})
    log._file = FillingDisk(path, room)  # type: ignore[assignment]
    with pytest.raises(UserError, match="the disk is full"):
        log.append({"step": 2})
    assert read_lines(path) == [{"step": 1}]
    log = LineFile(path)
    log.append({"step": 2})
    log.close()
    assert [record["step"] for record in read_lines(path)] == [1, 2]


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "none.jsonl") == []


def test_the_manifest_names_every_file_by_its_sum(tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "run.json").write_bytes(b"{}")
    (tmp_path / "table.md").write_text("made again")
    (tmp_path / ".hidden.tmp").write_text("left over")
    write_manifest(tmp_path, exclude=["table.md"])
    manifest = read_json(tmp_path / files.MANIFEST)
    assert manifest == {"sha256": {"runs/a/run.json": hashlib.sha256(b"{}").hexdigest()}}
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in manifest["sha256"].values())
    before = (tmp_path / files.MANIFEST).read_bytes()
    write_manifest(tmp_path, exclude=["table.md"])
    assert (tmp_path / files.MANIFEST).read_bytes() == before


def test_sums_of_large_files(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "large").write_bytes(content)
    assert sha256(tmp_path / "large") == hashlib.sha256(content).hexdigest()
    assert json.loads("1") == 1
