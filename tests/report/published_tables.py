"""A published table that is made up, and trained comparisons to set beside it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from bench.report.claims.folders import Trial
from bench.report.paper.layout import PaperTable, to_csv
from bench.report.paper.trained.lines import (
    Line,
    make_lines,
)
from bench.report.paper.trained.published import PublishedTable
from bench.report.paper.trained.tables import paper_table
from bench.store.read import open_comparison
from tests.report.fake_store import FakeArm, FakeStore

LVSM, DUAL = "lvsm-decoder-only", "efficient-lvsm"
ROWS = [
    {"label": "theirs alone", "source": "[README] another", "values": {"PSNR": 30.5}},
    {"label": "LVSM", "arm": LVSM, "values": {"PSNR": 29.67, "LPIPS": 0.098}},
    {"label": "dual", "arm": DUAL, "values": {"PSNR": 28.93, "LPIPS": 0.102}},
]


def a_table(rows: list[dict[str, Any]] | None = None, **changes: Any) -> PublishedTable:
    return PublishedTable.model_validate({
        "name": "a-table",
        "title": "A title",
        "source": "[note] a paper",
        "data": "RealEstate10K",
        "budget": "three days",
        "comparison": "nvs",
        "reference": "LVSM",
        "measures": [
            {"column": "PSNR", "unit": "dB", "digits": 2, "ours": "psnr"},
            {"column": "LPIPS", "digits": 3, "ours": "st_lpips"},
        ],
        "rows": ROWS if rows is None else rows,
        **changes,
    })  # fmt: skip


def a_trial(folder: Path, first: float = 17.0, second: float = 18.0, **options: Any) -> Trial:
    """LVSM and the dual stream that end at these PSNRs."""
    arms = (FakeArm(LVSM, "fill", first, 1.0, 20, 8), FakeArm(DUAL, "fill", second, 1.0, 20, 8))
    return Trial(open_comparison(FakeStore(**{"arms": arms, "noise": 0.05, **options}).write(folder)))


def line_of(lines: tuple[Line, ...], label: str, column: str = "PSNR") -> Line:
    (found,) = [line for line in lines if (line.row.label, line.measure.column) == (label, column)]
    return found


def the_table(table: PublishedTable, trial: Trial | None, *others: Trial) -> PaperTable:
    return paper_table(table, make_lines(table, trial), trial, others)


def rows_of(made: PaperTable) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(made))))
