"""Several comparisons at once: adjusted p-values and intervals, and which rows of a table's column deserve bold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as distributions

from bench.errors import UserError
from bench.stats.intervals import CONFIDENCE, Array, Interval, standard_error
from bench.stats.paired import Key, PairedDifference, paired_difference


def holm(p_values: ArrayLike) -> Array:
    """Adjusted p-values [M] of a family of M tests: reject those <= 5 %, and a wrong one is among them at most 5 % of the time.

    Holm's step-down procedure (A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics
    6(2), 1979). It holds whatever the tests have in common, such as a reference arm, and finds at least what Bonferroni does.

    Raises:
        UserError: a value outside 0 to 1.
    """
    given = np.asarray(p_values, dtype=np.float64)
    if not ((given >= 0) & (given <= 1)).all():
        raise UserError(f"p_values must lie between 0 and 1, got {given.tolist()}")
    order = np.argsort(given, kind="stable")
    steps = np.maximum.accumulate(given[order] * np.arange(given.size, 0, -1))
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def simultaneous_intervals(differences: Sequence[ArrayLike]) -> list[Interval | None]:
    """Intervals for the means of M sets of paired differences, each [N], that hold all at once in 95 % of the cases.

    Bonferroni: Student's t at a confidence of 1 - 5 % / M, at any number of pairs. They are wider than what `holm` needs to
    reject, which has no simple intervals: one may contain 0 although Holm's p-value is below 5 %. A set below two values has
    no interval and does not count in M.
    """
    sets = [np.asarray(values, dtype=np.float64) for values in differences]
    family = sum(data.size >= 2 for data in sets)
    found: list[Interval | None] = []
    for data in sets:
        if data.size < 2:
            found.append(None)
            continue
        mean, critical = float(data.mean()), distributions.t.ppf(1 - (1 - CONFIDENCE) / (2 * family), data.size - 1)
        half = float(critical) * standard_error(data)
        found.append(Interval(mean - half, mean + half))
    return found


def not_worse_than_best(
    values: Sequence[Mapping[Key, float]],
    *,
    higher_is_better: bool | None = True,
    digits: int = 2,
    correct: bool = False,
) -> list[bool]:
    """Which rows of a column deserve bold: not significantly worse than the best, after rounding.

    ``values[i]`` maps seeds to numbers. A seed that an arm did not finish is as a rule a hard one, so means over different
    seeds are never compared:

    - *Best* are the rows with most seeds, by their rounded means over the seeds that all of these rows have (several may
      tie). So a row that lacks a seed is never the best against rows that have it.
    - Every other row is compared with the best on common seeds. A row with all the seeds of the best is bold unless it is
      significantly worse; one that lacks a seed only if it is significantly better on those that it has.
    - Nothing is bold where fewer than two seeds can be compared, or where no side is better (None).

    Significant is what a single comparison says at 5 %. With `correct` it is what `holm` says of the family of all other rows
    against one best row, column by column: K - 1 tests with K rows. That is wrong less often, so more rows are bold.
    """
    if higher_is_better is None:
        return [False] * len(values)
    sign = 1.0 if higher_is_better else -1.0
    most = max((len(row) for row in values), default=0)
    candidates = [index for index, row in enumerate(values) if row and len(row) == most]
    common = (
        [seed for seed in values[candidates[0]] if all(seed in values[index] for index in candidates)] if most else []
    )
    if len(common) < 2:
        return [False] * len(values)
    means = {i: sign * round(float(np.mean([values[i][seed] for seed in common])), digits) for i in candidates}
    bold = {index for index in candidates if means[index] == max(means.values())}
    others = [index for index in range(len(values)) if index not in bold]
    for best in tuple(bold):
        compared = {index: paired_difference(values[index], values[best]) for index in others}
        compared = {index: difference for index, difference in compared.items() if difference.count >= 2}
        significant = _significant(list(compared.values()), correct)
        for (index, difference), differs in zip(compared.items(), significant, strict=True):
            better = sign * difference.mean > 0
            lacks = values[best].keys() - values[index].keys()
            if (differs and better) if lacks else (not differs or better):
                bold.add(index)
    return [index in bold for index in range(len(values))]


def _significant(differences: Sequence[PairedDifference], correct: bool) -> list[bool]:
    """Whether each differs from 0, by itself or as one of a family."""
    if not correct:
        return [difference.significant for difference in differences]
    p_values = [difference.p_value for difference in differences]
    return [bool(adjusted < 1 - CONFIDENCE) for adjusted in holm([p for p in p_values if p is not None])]
