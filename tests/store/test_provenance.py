from __future__ import annotations

import getpass
import json
import os
import platform
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from bench.store import provenance
from bench.store.files import read_json


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny project in a git repository, in the place of this one."""
    root = tmp_path / "project"
    (root / "bench" / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    (root / "bench" / "a.py").write_text("A = 1\n")
    (root / "bench" / "configs" / "nvs.yaml").write_text("name: nvs\n")
    (root / "bench" / "notes.txt").write_text("not a source\n")
    (root / "models" / "net.py").write_text("B = 2\n")
    git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    monkeypatch.setattr(provenance, "ROOT", root)
    return root


def test_the_sources_are_those_that_ran(project: Path, tmp_path: Path) -> None:
    outside = tmp_path / "my_net.py"
    outside.write_text("C = 3\n")
    provenance.write_provenance(tmp_path / "out", [outside])
    with zipfile.ZipFile(tmp_path / "out" / "sources.zip") as archive:
        assert archive.namelist() == ["bench/a.py", "bench/configs/nvs.yaml", "models/net.py", "outside/my_net.py"]
        assert archive.read("models/net.py") == b"B = 2\n"


def test_equal_sources_give_equal_bytes(project: Path, tmp_path: Path) -> None:
    provenance.write_provenance(tmp_path / "one")
    for path in project.rglob("*.py"):
        os.utime(path, (time.time() + 86400, time.time() + 86400))
    provenance.write_provenance(tmp_path / "two")
    assert (tmp_path / "one" / "sources.zip").read_bytes() == (tmp_path / "two" / "sources.zip").read_bytes()


def test_the_code_hash_sees_content_and_names(project: Path) -> None:
    hashes = [provenance.code_hash()]
    (project / "bench" / "notes.txt").write_text("still not a source\n")
    assert provenance.code_hash() == hashes[0]
    (project / "bench" / "a.py").write_text("A = 2\n")
    hashes.append(provenance.code_hash())
    (project / "bench" / "a.py").rename(project / "bench" / "b.py")
    hashes.append(provenance.code_hash())
    (project / "bench" / "configs" / "nvs.yaml").write_text("name: other\n")
    hashes.append(provenance.code_hash())
    assert len(set(hashes)) == 4


def test_commit_and_changes_are_kept(project: Path, tmp_path: Path) -> None:
    provenance.write_provenance(tmp_path / "clean")
    clean = read_json(tmp_path / "clean" / "git.json")
    assert len(clean["commit"]) == 40
    assert not clean["dirty"]
    assert (tmp_path / "clean" / "git.diff").read_bytes() == b""
    (project / "bench" / "a.py").write_bytes(b"A = '\xe9'  # in another encoding\n")
    provenance.write_provenance(tmp_path / "dirty")
    dirty = read_json(tmp_path / "dirty" / "git.json")
    assert dirty["commit"] == clean["commit"]
    assert dirty["dirty"]
    assert dirty["code_sha256"] != clean["code_sha256"]
    assert b"+A = '" in (tmp_path / "dirty" / "git.diff").read_bytes()


@pytest.mark.parametrize("reason", ["no repository", "no git"])
def test_without_git_the_commit_is_unknown(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    if reason == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        (project / ".git").rename(tmp_path / "gone")
    provenance.write_provenance(tmp_path / "out")
    record = read_json(tmp_path / "out" / "git.json")
    assert (record["commit"], record["dirty"]) == (None, False)
    assert record["code_sha256"] == provenance.code_hash()


def test_the_environment_names_software_and_nobody() -> None:
    record = provenance.environment()
    assert record["python"] == platform.python_version()
    assert {"torch", "numpy", "pydantic"} <= set(record["packages"])
    values = [record["python"], record["system"], *record["packages"].values()]
    assert not any("/" in value for value in values), "no folders"
    assert not {platform.node(), getpass.getuser()} & {word for value in values for word in value.split()}
    assert set(record) == {"python", "system", "packages"}
    assert str(Path.home()) not in json.dumps(record)


def test_this_projects_sources(repo_root: Path) -> None:
    names = {path.relative_to(repo_root).as_posix() for path in provenance.source_files()}
    assert {"bench/cli/app.py", "bench/configs/nvs.yaml", "models/efficient_lvsm.py", "baselines/lvsm.py"} <= names
    assert not any(name.startswith(("tests", "docs", "results")) for name in names)
