"""Claims about an arm that had a share of the time: which pair of budgets decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.report.claim_cases import arms, better, verdict, write_runs

__all__ = ["write_runs"]


def test_of_several_pairs_the_one_with_the_largest_budgets_decides(write_runs: Callable[..., Path]) -> None:
    def short(seconds: float, **options: Any) -> dict[str, Any]:
        return {"budget_s": seconds, "comparison": {"budget": {"amount": seconds, "unit": "seconds"}}, **options}

    measure = better(kind="two-budgets", share=0.6667, commands=["isochron run nvs --preset tiny"])
    folders = [  # at 6 of 9 seconds the arm is behind, at 100 of 150 it is ahead; by name 9 would be the last
        write_runs("cpu/9", arms=arms(17.0, 17.0), **short(9.0)),
        write_runs("cpu/6", arms=arms(17.0, 15.0), **short(6.0)),
        write_runs("cpu/150", arms=arms(17.0, 18.0), **short(150.0)),
        write_runs("cpu/100", arms=arms(17.0, 18.0), **short(100.0)),
    ]
    for order in (folders, folders[::-1]):
        found = verdict(measure, *order)
        assert (found.status, found.folders[0]) == ("reproduced", "cpu/150")
        assert "100 s against 150 s" in found.shown
