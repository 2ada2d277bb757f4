"""Finished, sealed result folders that verify, so that packing and comparing them can be tested without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.report import tables
from bench.store.files import write_manifest
from bench.store.read import open_comparison
from tests.report.fake_store import FakeArm, FakeStore

TABLES = ("table.md", "table.csv", "table.tex")
ARMS = (
    FakeArm("plain", "fill", ceiling=17.0, rate=0.11, steps=60, batch=8),
    FakeArm("dual", "fill", ceiling=18.4, rate=0.06, steps=64, batch=8),
)


def sealed(folder: Path, **options: Any) -> Path:
    """A comparison of two arms and three seeds with its tables and manifests; `options` go to `FakeStore`."""
    FakeStore(**({"arms": ARMS, "reference": "plain"} | options)).write(folder)
    return seal(folder)


def seal(folder: Path) -> Path:
    """Set the tables of a folder and write the sums of every file anew."""
    tables.write(open_comparison(folder), folder)
    for run in sorted(folder.glob("runs/*/seed-*")):
        write_manifest(run)
    write_manifest(folder, exclude=TABLES)
    return folder


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
