"""What a result was made from: sources, commit and changes, software, machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import platform
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

from bench.store.files import read_json, write_bytes, write_json

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bench", "models", "baselines")


def source_files() -> list[Path]:
    """All Python and YAML files of the project's packages, in a fixed order."""
    return sorted(
        path for package in PACKAGES for path in (ROOT / package).rglob("*.*") if path.suffix in (".py", ".yaml")
    )


def is_own(path: Path) -> bool:
    """Whether a file lies in one of the project's packages; `path` is resolved."""
    root = ROOT.resolve()
    return any(path.is_relative_to(root / package) for package in PACKAGES)


def code_hash() -> str:
    """SHA-256 over the project's sources: the key of everything that is cached about code."""
    digest = hashlib.sha256()
    for path in source_files():
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def code_of(folder: Path) -> str | None:
    """`code_hash` of the sources that made a result; None where its provenance does not tell."""
    path = folder / "provenance" / "git.json"
    return read_json(path).get("code_sha256") if path.is_file() else None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@cache
def _packages() -> dict[str, str]:
    """Version of every installed package; read once a process, for there are hundreds."""
    told = [item.metadata for item in importlib.metadata.distributions()]
    packages = {metadata["Name"]: metadata["Version"] for metadata in told if metadata["Name"]}
    return dict(sorted(packages.items(), key=lambda pair: pair[0].lower()))


def environment() -> dict[str, Any]:
    """Versions of Python and of every installed package, and the system; no names of hosts, users or folders."""
    return {
        "python": sys.version.split()[0],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": dict(_packages()),
    }


def write_provenance(folder: Path, extra_sources: list[Path] | None = None) -> None:
    """Write sources.zip, git.json, git.diff and environment.json into `folder`.

    `extra_sources` are files outside the project that arms come from (third-party factories).
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        named = [(path.relative_to(ROOT).as_posix(), path) for path in source_files()]
        named += [(f"outside/{path.name}", path) for path in extra_sources or []]
        for name, path in named:
            # A fixed date, so that equal sources give equal bytes.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), path.read_bytes(), zipfile.ZIP_DEFLATED)
    write_bytes(folder / "sources.zip", buffer.getvalue())
    commit = _git("rev-parse", "HEAD")
    difference = _git("diff", "HEAD") if commit else None
    write_json(
        folder / "git.json",
        {"commit": commit.strip() if commit else None, "dirty": bool(difference), "code_sha256": code_hash()},
    )
    write_bytes(folder / "git.diff", (difference or "").encode())
    write_json(folder / "environment.json", environment())
