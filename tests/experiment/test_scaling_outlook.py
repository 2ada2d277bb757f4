from __future__ import annotations

from dataclasses import replace

import pytest

from bench.experiment.scaling.outlook import NOMINAL_COST, NOMINAL_OVERHEAD, Outlook, Piece

COST = Piece(1, "Cost (views)", None, trains=False, done=False)
POINT = Piece(2, "Quality (budget), point 1 of 2, 5", 30.0, trains=True, done=False)
STEPS = replace(POINT, charged=None)


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(pieces: list[Piece], took: list[float]) -> list[str]:
    """What is said at each piece."""
    clock = Hands()
    outlook, said = Outlook(pieces, clock), []
    for number, seconds in enumerate(took):
        with outlook.at(number) as line:
            said.append(line)
            clock.now += seconds
    return said


def test_what_is_left_is_told_over_all_curves_and_learnt_from_what_was_measured():
    pieces = [COST, COST, POINT, replace(POINT, charged=60.0)]
    first, second, third, last = lines(pieces, [600.0, 200.0, 90.0, 0.0])
    nominal = 2 * NOMINAL_COST + NOMINAL_OVERHEAD * 90
    assert first == f"Curve 1 of 2, about {nominal / 60:.0f} min left in all: Cost (views)"
    assert f"about {(600 + NOMINAL_OVERHEAD * 90) / 60:.0f} min left" in second
    assert f"about {NOMINAL_OVERHEAD * 90 / 60:.0f} min left" in third
    assert last.startswith("Curve 2 of 2, about 3 min left in all: Quality")  # three times what is charged, as before


def test_what_was_done_before_takes_no_time_and_teaches_nothing():
    done = replace(POINT, done=True)
    assert lines([done, POINT], [0.0, 0.0])[1].startswith(f"Curve 2 of 2, about {10 * round(NOMINAL_OVERHEAD * 3):g} s")
    assert Outlook([done, done]).left(0) == 0


@pytest.mark.parametrize("took", [40.0, 4.0])
def test_a_budget_of_steps_says_nothing_until_a_point_has_been_run(took):
    first, second = lines([STEPS, STEPS], [took, 0.0])
    assert first == "Curve 2 of 2: Quality (budget), point 1 of 2, 5"
    assert second.startswith(f"Curve 2 of 2, about {max(10, took):g} s left in all: ")
