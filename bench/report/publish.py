"""Copies a finished result, without its weights, to where results are published."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.report import tables
from bench.report.verify import WEIGHTS, verify
from bench.store.files import MANIFEST, read_json, sha256, write_bytes, write_json
from bench.store.read import open_comparison
from bench.store.results import ELSEWHERE, RECORDS, record_of

TEXTS = {".json", ".jsonl", ".yaml", ".md", ".csv", ".tex", ".txt"}


def device_folder(device: dict[str, Any]) -> str:
    """Folder name of a device: ``cpu-2core``, ``h200``."""
    if device["kind"] == "cpu":
        return f"cpu-{device['cores']}core"
    words = [
        word for word in re.findall(r"[a-z0-9]+", device["name"].lower()) if word not in ("nvidia", "geforce", "tesla")
    ]
    return "-".join(words[:3])


def publish(folder: Path, to: Path, *, replace: bool = False) -> Path:
    """Copy ``folder`` to ``to/<device>/<comparison>-<preset>/``, without the paths of this machine, and return that.

    Raises:
        UserError: the result is unfinished or does not verify, or one is published there already.
    """
    name = record_of(folder)
    if name is None:
        raise UserError(f"{folder}: holds no {' or '.join(RECORDS)}; give the folder that `isochron run` printed")
    record = read_json(folder / name)
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
    make_portable(made, record)
    if target.exists():
        shutil.rmtree(target)
    made.rename(target)
    return target


def make_portable(folder: Path, record: Mapping[str, Any]) -> None:
    """Take this machine's paths out of a verified copy: of a comparison, or of all those below a folder of curves."""
    if "curves" in record:  # one may name a file of its own
        forget_places(folder, {"task": {"options": record["curves"]}, "arms": []})
    for trained in sorted(path.parent for path in folder.rglob(RECORDS[0])):
        forget_places(folder, read_json(trained / RECORDS[0]))
        tables.write(open_comparison(trained), trained)  # set anew: a place may stand escaped in their text


def forget_places(folder: Path, record: Mapping[str, Any]) -> None:
    """Take the folders of data and weights that options name out of a verified copy: they mean nothing elsewhere."""
    told = [record["task"]["options"], record["arms"]] if "arms" in record else []
    places = sorted({place for value in told for place in _places(value)}, key=len, reverse=True)
    if not places:
        return
    for path in sorted(path for path in folder.rglob("*") if path.suffix in TEXTS and path.name != MANIFEST):
        text = before = path.read_text(encoding="utf-8")
        for place in places:
            # Only where a path begins and ends: /data must leave bench/data alone.
            whole = rf"(?<![\w./~-]){re.escape(place)}(?![\w-]|\.\w)"  # a full stop may end the sentence
            text = re.sub(whole, lambda found: ELSEWHERE + Path(found[0]).name, text)
        if text != before:
            write_bytes(path, text.encode())
    for manifest in sorted(folder.rglob(MANIFEST), key=lambda path: len(path.parts), reverse=True):
        sums = read_json(manifest)["sha256"]
        here = {name: sha256(manifest.parent / name) for name in sums if (manifest.parent / name).is_file()}
        write_json(manifest, {"sha256": {**sums, **here}})


def _places(value: Any) -> Iterator[str]:
    """Every absolute path among the strings of `value`."""
    if isinstance(value, str) and value.startswith(("/", "~")) and value.rstrip("/~"):
        yield value.rstrip("/")
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _places(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _places(part)
