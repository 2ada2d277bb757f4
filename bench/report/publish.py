"""Copies a finished result, without its weights, to where results are published."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.report.verify import WEIGHTS, verify
from bench.store.files import read_json


def device_folder(device: dict[str, Any]) -> str:
    """Folder name of a device: ``cpu-2core``, ``h200``."""
    if device["kind"] == "cpu":
        return f"cpu-{device['cores']}core"
    words = [
        word for word in re.findall(r"[a-z0-9]+", device["name"].lower()) if word not in ("nvidia", "geforce", "tesla")
    ]
    return "-".join(words[:3])


def publish(folder: Path, to: Path, *, replace: bool = False) -> Path:
    """Copy ``folder`` to ``to/<device>/<comparison>-<preset>/`` and return that.

    Raises:
        UserError: the result is unfinished or does not verify, or one is published there already.
    """
    if not (folder / "comparison.json").is_file():
        raise UserError(f"{folder}: holds no comparison.json; give the folder that `isochron run` printed")
    record = read_json(folder / "comparison.json")
    if record["status"] != "finished":
        raise UserError(f"{folder}: is {record['status']}, not finished; only finished results are published")
    problems = verify(folder).problems
    if problems:
        raise UserError(f"{folder}: does not verify ({problems[0]}); see `isochron verify {folder}`")
    target = to / device_folder(record["device"]) / f"{record['name']}-{record['preset']}"
    if target.exists() and not replace:
        raise UserError(f"{target}: is published already; give --replace, or another place with --to")
    made = target.with_name(f".{target.name}.new")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(folder, made, ignore=shutil.ignore_patterns(WEIGHTS, "resume", "*.tmp", ".lock"))
    if target.exists():
        shutil.rmtree(target)
    made.rename(target)
    return target
