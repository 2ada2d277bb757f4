"""Claims and the made-up runs that they are held against."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.report.claims import Claim, Verdict, judge
from tests.report.fake_store import FakeArm, FakeStore

BASE = {"id": "a-claim", "says": "One beats the other", "source": "a paper", "table": "Table 1", "task": "nvs", "scale": "tiny"}  # fmt: skip
PAIR = {"kind": "paired", "comparison": "nvs", "arm": "efficient-lvsm", "reference": "lvsm-decoder-only"}
FIVE = (0, 1, 2, 3, 4)


def a_claim(measure: dict[str, Any], **changes: Any) -> Claim:
    return Claim.model_validate({**BASE, "measure": measure, **changes})


def arms(first: float, second: float, *, steps: int = 100) -> tuple[FakeArm, ...]:
    """LVSM and Efficient-LVSM that end at these PSNRs; the second one takes `steps` steps, the first 100."""
    return (
        FakeArm("lvsm-decoder-only", "fill", first, 1.0, 100, 8),
        FakeArm("efficient-lvsm", "fill", second, 1.0, steps, 8),
    )


@pytest.fixture
def write_runs(tmp_path: Path) -> Callable[..., Path]:
    """A comparison in ``device/name``."""

    def write(where: str = "cpu-2core/nvs-tiny", **options: Any) -> Path:
        return FakeStore(**{"arms": arms(17.0, 18.0), "seeds": FIVE, "noise": 0.1, **options}).write(tmp_path / where)

    return write


def verdict(measure: dict[str, Any], *folders: Path, **changes: Any) -> Verdict:
    (found,) = judge([a_claim(measure, **changes)], folders)
    return found


def better(**changes: Any) -> dict[str, Any]:
    return {**PAIR, "metric": "psnr", "expected": {"above": 0}, **changes}


def row(label: str, views: int = 8, **changes: Any) -> dict[str, Any]:
    return {"label": label, "sizes": {"input_views": views}, **changes}
