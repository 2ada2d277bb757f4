"""A bundle verifies on another machine, and one that was edited, cut or made up is refused with the name of what is wrong."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.errors import UserError
from bench.report.share import bundle
from bench.report.verify import verify
from bench.store import bundle as store
from bench.store.files import write_manifest
from tests.report.fake_store import TRAINING
from tests.report.sealed import TABLES, change, seal, sealed

FOLDER = "cpu-2core/nvs-tiny"
RUN = "runs/dual.fill/seed-1"


class Entry(NamedTuple):
    """A member of an archive as it is written by hand."""

    name: str
    content: bytes = b""
    type: bytes = tarfile.REGTYPE
    linkname: str = ""


def entries(path: Path) -> list[Entry]:
    with tarfile.open(path) as tar:
        return [Entry(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]


def rewrite(path: Path, members: list[Entry], form: int = tarfile.USTAR_FORMAT, behind: bytes = b"") -> Path:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.size, info.type, info.linkname = len(member.content), member.type, member.linkname
            tar.addfile(info, io.BytesIO(member.content))
    path.write_bytes(gzip.compress(out.getvalue() + behind))
    return path


def edit(path: Path, name: str, new: Callable[[bytes], bytes], *, sums: bool) -> None:
    """Change a member, and on request its size and sum in the bundle's manifest."""
    members = {member.name: member.content for member in entries(path)}
    members[name] = new(members[name])
    if sums:
        manifest = json.loads(members[store.MANIFEST])
        manifest["members"][name] = {
            "sha256": hashlib.sha256(members[name]).hexdigest(),
            "bytes": len(members[name]),
        }
        members[store.MANIFEST] = json.dumps(manifest).encode()
    rewrite(path, [Entry(*pair) for pair in members.items()])


def edit_manifest(path: Path, **values: Any) -> None:
    edit(path, store.MANIFEST, lambda content: json.dumps(json.loads(content) | values).encode(), sums=False)


def repack(path: Path, tamper: Callable[[Path], object], tmp_path: Path) -> Path:
    """A bundle whose folder was changed by somebody who wrote every sum anew."""
    with store.unpacked(path) as opened:
        folder = opened.folders[FOLDER]
        tamper(folder)
        for run in folder.glob("runs/*/seed-*"):
            write_manifest(run)
        write_manifest(folder, exclude=TABLES)
        return store.pack(opened.root, [{"folder": FOLDER}], tmp_path / "forged.tar.gz", replace=True)


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        verify(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert "isochron-" not in str(error.value), "the temporary folder is nobody's business"
    return str(error.value)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sealed(tmp_path_factory.mktemp("bundled") / "store")


@pytest.fixture(scope="session")
def original(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle([folder], tmp_path_factory.mktemp("original") / "nvs.tar.gz")


@pytest.fixture
def packed(original: Path, tmp_path: Path) -> Path:
    path = tmp_path / "nvs.tar.gz"
    path.write_bytes(original.read_bytes())
    return path


def test_it_verifies_like_its_folder_and_leaves_nothing_behind(folder, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    report = verify(packed)
    assert report.problems == []
    inside = [line.removeprefix(f"{FOLDER}: ") for line in report.checked[2:]]
    assert inside == [line.removeprefix(f"{folder.name}: ") for line in verify(folder).checked]
    assert hashlib.sha256(packed.read_bytes()).hexdigest() in report.checked[0]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_manifest_tells_versions_folders_tables_sizes_and_sums(packed):
    first, *members = entries(packed)
    manifest = json.loads(first.content)
    assert (first.name, manifest["schema"], manifest["protocol"]) == ("bundle.json", 1, "1.0")
    assert manifest["isochron"]
    assert manifest["folders"][0]["folder"] == FOLDER
    assert manifest["folders"][0]["tables"] == sorted(TABLES)
    assert [member.name for member in members] == sorted(manifest["members"]) == list(manifest["members"])
    for member in members:
        known = manifest["members"][member.name]
        assert known == {"sha256": hashlib.sha256(member.content).hexdigest(), "bytes": len(member.content)}


def test_the_same_result_gives_the_same_bytes_wherever_and_whenever(folder, packed, tmp_path):
    with store.unpacked(packed) as opened:
        moved = opened.folders[FOLDER].rename(tmp_path / "another name")
    for path in moved.rglob("*"):
        os.utime(path, (1, 1))
    assert bundle([moved], tmp_path / "again.tar.gz").read_bytes() == packed.read_bytes()
    with tarfile.open(packed) as tar:
        assert {(info.mtime, info.uid, info.gid, info.uname, info.mode) for info in tar} == {(0, 0, 0, "", 0o644)}
    assert packed.read_bytes()[3:8] == bytes(5), "no name and no time in the gzip header"


def test_places_of_the_machine_and_strangers_stay_behind(tmp_path):
    secret = "/data/secret/re_10k"
    folder = sealed(tmp_path / "store", training={"dual": TRAINING | {"teacher": secret}})
    change(folder / "comparison.json", warnings=[f"read from {secret}"])
    (folder / "log.txt").write_text(f"Reading {secret}.\nNot {secret}.old\n")
    seal(folder)
    (folder / "notes.txt").write_text("for me alone")
    (folder / ".lock").write_text("")
    path = bundle([folder], tmp_path / "out.tar.gz")
    assert verify(path).problems == []
    contents = b"".join(member.content for member in entries(path))
    assert contents.count(b"secret") == contents.count(b"/data/secret/re_10k.old") == 1
    assert b"elsewhere/re_10k" in contents
    assert not {"notes.txt", ".lock"} & {Path(member.name).name for member in entries(path)}
    assert (folder / "notes.txt").is_file(), "the original is left alone"


def test_weights_come_along_on_request_alone(tmp_path):
    folder = sealed(tmp_path / "store")
    out = tmp_path / "out.tar.gz"
    with pytest.raises(UserError, match=r"holds no checkpoint\.safetensors; leave --weights out"):
        bundle([folder], out, weights=True)
    (folder / RUN / "checkpoint.safetensors").write_bytes(b"weights")
    seal(folder)
    names = [[member.name for member in entries(bundle([folder], out, weights=w, replace=True))] for w in (False, True)]
    assert sorted({*names[1]} - {*names[0]}) == [f"{FOLDER}/{RUN}/checkpoint.safetensors"]
    assert verify(out).problems == []


def test_several_folders_even_of_one_name_fit_into_one_file(folder, tmp_path):
    other = sealed(tmp_path / "other", seeds=(7, 8))
    path = bundle([folder, other], tmp_path / "out.tar.gz")
    with store.unpacked(path) as opened:
        assert list(opened.folders) == [FOLDER, f"{FOLDER}-2"]
    assert verify(path).problems == []


def test_what_is_no_finished_verified_result_is_not_packed(folder, packed, tmp_path):
    with pytest.raises(UserError, match=r"is there already; give --replace"):
        bundle([folder], packed)
    assert bundle([folder], packed, replace=True) == packed
    with pytest.raises(UserError, match=r"holds no comparison\.json or efficiency\.json or scaling\.json"):
        bundle([tmp_path], tmp_path / "out.tar.gz")
    running = sealed(tmp_path / "running", status="running")
    with pytest.raises(UserError, match=r"is running, not finished; go on with `isochron resume .*running`"):
        bundle([running], tmp_path / "out.tar.gz")
    change(running / "comparison.json", status="finished")
    with pytest.raises(UserError, match=r"does not verify .*comparison.json was changed"):
        bundle([folder, running], tmp_path / "out.tar.gz")
    assert not (tmp_path / "out.tar.gz").exists()


def test_a_full_disk_leaves_the_old_file(folder, packed, monkeypatch):
    before = packed.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="the disk is full"):
        bundle([folder], packed, replace=True)
    assert packed.read_bytes() == before
    assert [path.name for path in packed.parent.iterdir()] == [packed.name]


@pytest.mark.parametrize("name", ["comparison.json", f"{RUN}/evals.jsonl", "table.md", "references.json"])
def test_an_edited_file_is_named(packed, name):
    edit(packed, f"{FOLDER}/{name}", lambda content: content.replace(b"1", b"2"), sums=False)
    assert f"{FOLDER}/{name} was changed after it was packed" in refused(packed)


def test_an_edited_file_of_another_size_is_named(packed):
    edit(packed, f"{FOLDER}/{RUN}/run.json", lambda content: content + b" ", sums=False)
    assert f"{FOLDER}/{RUN}/run.json was changed after it was packed" in refused(packed)


def test_an_edited_file_with_its_sum_in_the_manifest_is_named(packed):
    edit(packed, f"{FOLDER}/{RUN}/evals.jsonl", lambda content: content.replace(b"1", b"2"), sums=True)
    wrong = verify(packed).problems
    assert any(f"{RUN}/evals.jsonl was changed" in line for line in wrong)
    assert all(line.startswith(f"{FOLDER}: ") for line in wrong)


def better(folder: Path) -> None:
    """Lift every final record of a run."""
    path = folder / RUN / "evals.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for record in lines[-1]["records"]:
        record["psnr"] += 1
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (better, "table.csv: all"),
        (lambda folder: (folder / "table.md").write_text("plain wins\n"), "table.md: every line"),
        (lambda folder: change(folder / RUN / "run.json", final={"psnr": 40.0}), "run.json has other values of psnr"),
        (lambda folder: change(folder / RUN / "run.json", steps=7), "events.jsonl has"),
        (lambda folder: change(folder / RUN / "run.json", overshoot_s=9.0), "run.json says more"),
        (lambda folder: change(folder / RUN / "ledger.json", accounted=1.0), "ledger.json: they give"),
        (lambda folder: (folder / "more.txt").write_text("x"), ""),
    ],
)
def test_numbers_that_do_not_follow_are_found_even_if_every_sum_was_written_anew(packed, tmp_path, tamper, said):
    wrong = verify(repack(packed, tamper, tmp_path)).problems
    assert any(said in line for line in wrong) if said else wrong == []


def test_files_that_no_manifest_names_are_told(packed, tmp_path):
    with store.unpacked(packed) as opened:
        (opened.folders[FOLDER] / RUN / "run2.json").write_text("{}")
        path = store.pack(opened.root, [{"folder": FOLDER}], tmp_path / "forged.tar.gz")
    assert f"{FOLDER}: manifest.json names every file: {RUN}/run2.json" in verify(path).problems


@pytest.mark.parametrize(
    "tamper",
    [
        lambda folder: (folder / "comparison.json").write_text("[]"),
        lambda folder: (folder / RUN / "run.json").write_text("[]"),
        lambda folder: (folder / RUN / "run.json").write_text("[" * 100_000),
        lambda folder: change(folder / RUN / "run.json", steps="many"),
        lambda folder: change(folder / RUN / "ledger.json", wall=0),
        lambda folder: (folder / RUN / "evals.jsonl").write_text("1\n2\n"),
        lambda folder: (folder / RUN / "ledger.json").unlink(),
    ],
)
def test_records_of_any_shape_are_a_problem_in_one_line(packed, tmp_path, tamper):
    path = repack(packed, tamper, tmp_path)
    wrong = verify(path).problems
    assert wrong
    assert all(line.startswith(f"{FOLDER}: ") and "\n" not in line and "isochron-" not in line for line in wrong)


def test_a_manifest_that_points_out_of_its_folder_is_refused(packed):
    name = f"{FOLDER}/manifest.json"
    edit(packed, name, lambda content: json.dumps({"sha256": {"../../../x": "0"}}).encode(), sums=True)
    assert verify(packed).problems == [
        f"{FOLDER}: manifest.json: '../../../x' is no path inside the folder; do not use the result"
    ]


LAST = f"{FOLDER}/table.tex"
UNSAFE: dict[str, tuple[Callable[[list[Entry]], list[Entry]], str]] = {
    "a missing member": (lambda all: all[:-1], "fewer members"),
    "one in the middle": (lambda all: [*all[:5], *all[6:]], "stands where bundle.json names"),
    "an unknown member": (lambda all: [*all, Entry("cpu-2core/nvs-tiny/z")], "holds more than bundle.json names"),
    "one twice": (lambda all: [*all, all[-1]], "holds more than bundle.json names"),
    "another order": (lambda all: [all[0], *all[:0:-1]], "stands where bundle.json names"),
    "a symbolic link": (lambda all: [*all[:-1], Entry(LAST, b"", tarfile.SYMTYPE, "/etc/passwd")], "no plain file"),
    "a hard link": (lambda all: [*all[:-1], Entry(LAST, b"", tarfile.LNKTYPE, all[1].name)], "no plain file"),
    "a device": (lambda all: [*all[:-1], Entry(LAST, b"", tarfile.CHRTYPE)], "no plain file"),
    "a folder": (lambda all: [all[0], Entry("cpu-2core", b"", tarfile.DIRTYPE), *all[1:]], "no plain file"),
    "a path upwards": (lambda all: [all[0], Entry("../x"), *all[1:]], "stands where bundle.json names"),
    "no manifest": (lambda all: all[1:], "is no bundle"),
    "nothing": (lambda all: [], "fewer members"),
}


@pytest.mark.parametrize("what", UNSAFE)
def test_an_archive_that_is_not_as_it_was_packed_is_refused(packed, what):
    make, said = UNSAFE[what]
    assert said in refused(rewrite(packed, make(entries(packed))))


def test_extensions_of_the_format_are_refused(packed):
    members = entries(packed)
    assert "no plain file" in refused(rewrite(packed, [members[0], Entry("x" * 300)], tarfile.GNU_FORMAT))
    assert "no plain file" in refused(rewrite(packed, [members[0], Entry("ü" * 200)], tarfile.PAX_FORMAT))


def test_nothing_may_stand_behind_the_last_member(packed):
    members = entries(packed)
    assert "holds more" in refused(rewrite(packed, members, behind=b"x"))
    assert "holds more" in refused(rewrite(packed, members, behind=bytes(10_000_000)))
    rewrite(packed, members)
    packed.write_bytes(packed.read_bytes() + b"more")
    refused(packed)


@pytest.mark.parametrize(
    "name", ["/etc/x", "../x", f"{FOLDER}/../../x", f"{FOLDER}//x", f"{FOLDER}/a\\b", f"{FOLDER}/\n"]
)
def test_a_path_that_leads_out_is_refused_before_anything_is_written(packed, name):
    first, *rest = entries(packed)
    manifest = json.loads(first.content)
    manifest["members"][name] = {"sha256": hashlib.sha256(b"").hexdigest(), "bytes": 0}
    rewrite(packed, [Entry("bundle.json", json.dumps(manifest).encode()), *rest, Entry(name)])
    assert "is no path inside the bundle" in refused(packed)


def test_members_outside_the_folders_and_names_of_both_kinds_are_refused(packed):
    first, *rest = entries(packed)
    for name, said in (("x", "lies in none"), (f"{LAST}/x", "a file and a folder at once")):
        manifest = json.loads(first.content)
        manifest["members"][name] = {"sha256": hashlib.sha256(b"").hexdigest(), "bytes": 0}
        rewrite(packed, [Entry("bundle.json", json.dumps(manifest).encode()), *rest, Entry(name)])
        assert said in refused(packed)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"protocol": "1.1"}, "protocol is 1.1, this version's is 1.0"),
        ({"protocol": "2.0"}, "protocol is 2.0"),
        ({"protocol": None}, "protocol is None"),
        ({"schema": 2}, "schema is 2, this version reads 1"),
        ({"folders": []}, "folders: "),
        ({"folders": [{"folder": "../x"}]}, "is no path inside"),
        ({"folders": [{"folder": FOLDER}] * 2}, "named twice"),
        ({"members": []}, "members: "),
        ({"members": {f"{FOLDER}/x": {"sha256": "0", "bytes": 1}}}, "sha256: "),
        ({"members": {f"{FOLDER}/x": {"sha256": "0" * 64, "bytes": -1}}}, "bytes: "),
    ],
)
def test_a_manifest_of_another_kind_is_refused(packed, values, said):
    edit_manifest(packed, **values)
    assert said in refused(packed)


def test_another_patch_of_the_protocol_is_read(packed):
    edit_manifest(packed, protocol="1.0.7")
    assert verify(packed).problems == []


def test_sizes_are_bounded_before_anything_is_unpacked(folder, packed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        assert "1,000 are free" in refused(packed)
    with monkeypatch.context() as patch:
        patch.setattr(store, "TOTAL_BYTES", 1000)
        assert "pack fewer folders" in refused(packed)
        with pytest.raises(UserError, match="pack fewer folders"):
            bundle([folder], tmp_path / "large.tar.gz")
    monkeypatch.setattr(store, "MANIFEST_BYTES", 100)
    assert "is no bundle" in refused(packed)


@pytest.mark.parametrize(
    "content", [b"", b"text", gzip.compress(b"text", mtime=0), gzip.compress(b"x" * 5000, mtime=0), bytes(1000)]
)
def test_what_is_no_bundle_is_refused(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    refused(path)


quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_anywhere_is_refused(packed, original, share):
    content = original.read_bytes()
    packed.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=str(packed)), store.unpacked(packed):
        pass


@quick
@given(share=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_changes_nothing(packed, original, share, flip):
    content = bytearray(original.read_bytes())
    place = int(share * len(content))
    content[place] ^= flip
    packed.write_bytes(content)
    if place < 10:  # the header of the compression holds bytes that mean nothing
        with contextlib.suppress(UserError), store.unpacked(packed):
            return
    else:
        with pytest.raises(UserError, match=str(packed)), store.unpacked(packed):
            pass
