"""Whether the intervals, probabilities and powers of bench/stats keep what they promise: the simulations of docs/statistics.md.

    python -m tests.stats.coverage

prints its tables, with the same numbers each time, in about two minutes of one core. "Now" in a table is what bench/stats
does; the others are what it might do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

from bench import stats
from bench.stats.crossovers import _lead_since
from bench.stats.intervals import pull_apart
from tests.stats.candidates import METHODS, Method, now, resampled, student, welch

Array = NDArray[np.float64]

SEEDS = (3, 5, 10, 20)
REPETITIONS = 10_000
"""Monte-Carlo error of a share of 95 %: 0.22 points; half of them 0.31, a tenth 0.7."""
AT_ONCE = 500
"""Repetitions that share their resamples."""

DIFFERENCES: dict[str, tuple[Callable[[np.random.Generator, tuple[int, ...]], Array], float]] = {
    "normal": (lambda rng, size: rng.standard_normal(size), 0.0),
    "gamma, skewness 1": (lambda rng, size: rng.gamma(4.0, 1.0, size), 4.0),
    "lognormal, sigma 0.25": (lambda rng, size: rng.lognormal(0.0, 0.25, size), math.exp(0.25**2 / 2)),
    "lognormal, sigma 1": (lambda rng, size: rng.lognormal(0.0, 1.0, size), math.exp(0.5)),
}
"""Name -> how to draw them, and their true mean. The last (skewness 6) is far from mild."""
MILD = tuple(DIFFERENCES)[:3]
SCATTER = {
    "normal": 1.0,
    "gamma, skewness 1": 2.0,
    "lognormal, sigma 0.25": math.sqrt(math.expm1(0.25**2) * math.exp(0.25**2)),
}
"""Their true standard deviations."""


def coverage(name: str, method: Method, seeds: int, repetitions: int = REPETITIONS) -> tuple[float, float, float]:
    """Percent of the intervals of `seeds` differences that hold the true mean, lie below it, and lie above it."""
    draw, truth = DIFFERENCES[name]
    rng = np.random.default_rng([seeds, list(DIFFERENCES).index(name)])
    below = above = 0
    for _ in range(repetitions // AT_ONCE):
        low, high = method(draw(rng, (AT_ONCE, seeds)), rng)
        below, above = below + int((high < truth).sum()), above + int((low > truth).sum())
    total = repetitions // AT_ONCE * AT_ONCE
    return 100 - 100 * (below + above) / total, 100 * below / total, 100 * above / total


def false_positives(noise: str, seeds: int, repetitions: int = REPETITIONS) -> float:
    """Percent of A/A comparisons that do not tie: two arms of the same noise, on top of what a seed does to both."""
    rng = np.random.default_rng(seeds)
    draw = {
        "normal": lambda size: rng.standard_normal(size),
        "exponential, skewness 2": lambda size: rng.exponential(size=size),
        "heavy tails (t with 3)": lambda size: rng.standard_t(3, size=size),
        "one seed in ten 5 times as noisy": lambda size: (
            rng.standard_normal(size) * np.where(rng.random(size) < 0.1, 5, 1)
        ),
    }[noise]
    wrong = 0
    for _ in range(repetitions // AT_ONCE):
        shared = rng.normal(0, 2, (AT_ONCE, seeds))
        arms = [shared + draw((AT_ONCE, seeds)) for _ in range(2)]
        low, high = now(arms[1] - arms[0], rng)
        wrong += int(((low > 0) | (high < 0)).sum())
    return 100 * wrong / (repetitions // AT_ONCE * AT_ONCE)


def found(data: Array) -> float:
    """Percent of the rows of differences [R, N] whose t-interval excludes 0."""
    low, high = student(data, np.random.default_rng())
    return 100 * float(((low > 0) | (high < 0)).mean())


def power_at_detectable(seeds: int, repetitions: int = REPETITIONS) -> tuple[float, float]:
    """Percent found of a true difference as large as the MDE: from the true scatter, and from another experiment's.

    The second is what the MDE of one table says about the next experiment of as many seeds.
    """
    rng = np.random.default_rng(seeds)
    shift = stats.detectable_difference(np.arange(seeds)) / np.arange(seeds).std(ddof=1)
    data, before = rng.standard_normal((2, repetitions, seeds))
    return found(data + shift), found(data + shift * before.std(axis=1, ddof=1)[:, None])


def power_at_needed(name: str, difference: float, repetitions: int = REPETITIONS) -> tuple[int, float, float]:
    """Seeds needed for a difference in standard deviations, power 80 %; percent found with these, as plus and as minus."""
    draw, truth = DIFFERENCES[name]
    seeds = stats.seeds_needed(1.0, difference)
    rng = np.random.default_rng([seeds, list(DIFFERENCES).index(name)])
    data = (draw(rng, (repetitions, seeds)) - truth) / SCATTER[name]
    ends = []
    for shift in (difference, -difference):
        pieces = [now(part + shift, rng) for part in np.split(data, repetitions // AT_ONCE)]
        ends.append(100 * float(np.mean([((low > 0) | (high < 0)).mean() for low, high in pieces])))
    return seeds, *ends


def welch_coverage(name: str, first: int, second: int, scatter: float, repetitions: int = REPETITIONS) -> float:
    """Percent of Welch's intervals that hold the true difference of two means; the second side scatters `scatter` times as much."""
    draw, truth = DIFFERENCES[name]
    rng = np.random.default_rng([first, second, list(DIFFERENCES).index(name)])
    low, high = welch(draw(rng, (repetitions, first)), scatter * draw(rng, (repetitions, second)))
    true = (scatter - 1) * truth
    return 100 * float(((low <= true) & (true <= high)).mean())


def false_alarms(arms: int, seeds: int, repetitions: int = REPETITIONS) -> tuple[float, float]:
    """Percent of A/A comparisons of so many equal arms with one reference in which any differs: uncorrected, and by Holm."""
    rng = np.random.default_rng([arms, seeds])
    data = rng.standard_normal((repetitions, arms + 1, seeds))
    away = data[:, 1:] - data[:, :1]
    t = away.mean(axis=2) / (away.std(axis=2, ddof=1) / math.sqrt(seeds))
    smallest = (2 * distributions.t.sf(np.abs(t), seeds - 1)).min(axis=1)
    # Holm rejects any at all where it rejects at its first step
    return 100 * float((smallest < 0.05).mean()), 100 * float((arms * smallest < 0.05).mean())


def power_of_planned(pilot: int, difference: float, quantiles: int = 200) -> tuple[int, int, float]:
    """Seeds that are needed at a scatter of 1; median of those that pilots say; mean power in percent of what they say.

    No chance in it: the scatter of pilots of normal differences follows chi-square.
    """
    levels = (np.arange(quantiles) + 0.5) / quantiles
    scatters = np.sqrt(distributions.chi2.ppf(levels, pilot - 1) / (pilot - 1))
    said = [stats.seeds_needed(scatter, difference) for scatter in scatters]
    gained = [stats.power(seeds, difference=difference, scatter=1.0) for seeds in said]
    return stats.seeds_needed(1.0, difference), said[quantiles // 2], 100 * float(np.mean(gained))


BINS = (0.0, 0.025, 0.1, 0.3, 0.7, 0.9, 0.975, 1.0)


def calibration(seeds: int, spread: float, repetitions: int = 100_000) -> list[tuple[float, float]]:
    """Mean P(better) and percent truly better in each of `BINS`.

    True differences are normal, `spread` standard errors wide.
    """
    rng = np.random.default_rng(seeds)
    truth = rng.normal(0, spread / math.sqrt(seeds), repetitions)
    data = truth[:, None] + rng.standard_normal((repetitions, seeds))
    if seeds < stats.BOOTSTRAP_FROM:
        t = data.mean(axis=1) / (data.std(axis=1, ddof=1) / math.sqrt(seeds))
        said = distributions.t.cdf(t, seeds - 1)
    else:
        pieces = []
        for part in np.split(data, repetitions // AT_ONCE):
            mean = part.mean(axis=1, keepdims=True)
            means = mean + pull_apart(seeds) * (resampled(part, rng, 1000)[0] - mean)
            pieces.append(distributions.t.cdf(distributions.norm.ppf((means > 0).mean(axis=1)), seeds - 1))
        said = np.concatenate(pieces)
    where = np.digitize(said, BINS[1:-1])
    return [(100 * said[where == b].mean(), 100 * (truth[where == b] > 0).mean()) for b in range(len(BINS) - 1)]


def lost_bold(arms: int, seeds: int, level: int, correct: bool, repetitions: int = REPETITIONS) -> float:
    """Percent of tables in which the arm that is truly best is not bold.

    `level` of the arms are equally good, the others 20 deviations worse. Row by row what `stats.not_worse_than_best` does.
    """
    rng = np.random.default_rng([arms, seeds, level])
    data = rng.standard_normal((repetitions, arms, seeds)) - 20.0 * (np.arange(arms) >= level)[:, None]
    best = data.mean(axis=2).argmax(axis=1)
    away = data - data[np.arange(repetitions), best][:, None]
    with np.errstate(invalid="ignore"):
        t = away.mean(axis=2) / (away.std(axis=2, ddof=1) / math.sqrt(seeds))
    p = np.where(np.arange(arms) == best[:, None], 1.0, 2 * distributions.t.sf(np.abs(t), seeds - 1))
    if correct:
        order = np.argsort(p, axis=1)
        # the best row itself is no test: its p of 1 comes last and leaves a family of arms - 1
        steps = np.maximum.accumulate(np.take_along_axis(p, order, 1) * np.maximum(arms - 1 - np.arange(arms), 1), 1)
        np.put_along_axis(p, order, steps, 1)
    return 100 * float((p[:, 0] < 0.05).mean())


def iqm_coverage(runs: int, width: int, columns: stats.Columns, repetitions: int = REPETITIONS // 2) -> float:
    """Percent of the intervals of a difference of interquartile means that hold the true one, 0.5.

    Skewed runs; of ``samples`` half of a run's noise is its own on all of them.
    """
    rng = np.random.default_rng([runs, width])
    hit = 0
    for _ in range(repetitions):
        hard = rng.normal(0, 2, width)  # what a column does to all
        noise = rng.gamma(4.0, 0.5, (2, runs, width))
        if columns == "samples":
            noise += rng.normal(0, 1, (2, runs, 1))
        interval = stats.iqm_difference(
            hard + noise[0] + 0.5, hard + noise[1], columns=columns, resamples=200, seed=int(rng.integers(2**31))
        ).interval
        hit += interval.contains(0.5)
    return 100 * hit / repetitions


def improvement_coverage(
    runs: int, tasks: int, truth: float, repetitions: int = REPETITIONS // 2
) -> tuple[float, float]:
    """Percent of the intervals of P(improvement) that hold it: ours, and the plain stratified percentile bootstrap's."""
    rng = np.random.default_rng([runs, tasks])
    ahead = math.sqrt(2) * distributions.norm.ppf(truth)
    ours = 0
    tables = rng.standard_normal((repetitions, 2, runs, tasks))
    tables[:, 0] += ahead
    for number, (first, second) in enumerate(tables):
        ours += stats.probability_of_improvement(first, second, resamples=300, seed=number).interval.contains(truth)
    plain = 0
    for part in np.array_split(tables, repetitions // AT_ONCE):
        wins = (part[:, 0].transpose(0, 2, 1)[..., None] > part[:, 1].transpose(0, 2, 1)[:, :, None]).astype(float)
        one, other = rng.multinomial(runs, [1 / runs] * runs, size=(2, 500, tasks)) / runs
        draws = np.einsum("bti,rtij,btj->rb", one, wins, other, optimize=True) / tasks
        low, high = np.quantile(draws, [0.025, 0.975], axis=1)
        plain += int(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).sum())
    return 100 * ours / repetitions, 100 * plain / repetitions


def crossover_coverage(seeds: int, repetitions: int = REPETITIONS // 2) -> tuple[float, float]:
    """Percent of the crossover intervals that hold the true crossing, 27: ours, and those of seeds drawn with replacement.

    Curves carry a seed's luck all the way.
    """
    rng = np.random.default_rng(seeds)
    grid = np.arange(10.0, 60.0, 10.0)
    flat = dict.fromkeys(range(seeds), (grid, 0 * grid))
    hit = plain = 0
    for number in range(repetitions):
        lead = 0.1 * (grid - 27) + rng.normal(0, 0.6, (seeds, 1)) + rng.normal(0, 0.1, (seeds, grid.size))
        curves = {seed: (grid, row) for seed, row in enumerate(lead)}
        hit += stats.crossover(curves, flat, resamples=500, seed=number).interval.contains(27)
        drawn = lead[np.random.default_rng(number).integers(seeds, size=(500, seeds))].mean(axis=1)
        low, high = np.quantile(_lead_since(drawn, grid), [0.025, 0.975], method="inverted_cdf")
        plain += low <= 27 <= high
    return 100 * hit / repetitions, 100 * plain / repetitions


def power_law_coverage(form: str, replicates: int, repetitions: int = REPETITIONS // 10) -> tuple[float, float]:
    """Percent of the intervals of the exponent, and of the miss at a left-out point, that hold the truth."""
    rng = np.random.default_rng(replicates)
    x = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    exponent, miss = 0, 0
    for number in range(repetitions):
        noise = rng.standard_normal((x.size, replicates))
        if form == "saturating":
            truth, y = 0.5, (20 - 6 * x**-0.5)[:, None] + 0.1 * noise
        else:
            truth, y = 1.7, (0.02 * x**1.7)[:, None] * np.exp(0.05 * noise)
        held = stats.predict_largest(x, y, form=form, resamples=200, seed=number)
        exponent += held.law.exponent.interval.contains(truth)
        miss += held.miss.interval.contains(0)
    return 100 * exponent / repetitions, 100 * miss / repetitions


def show(title: str, headings: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a Markdown table."""
    headings = list(headings)
    print(f"\n**{title}**\n\n| {' | '.join(headings)} |\n|{':--|' + '--:|' * (len(headings) - 1)}", flush=True)
    for row in rows:
        cells = (f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row)
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print every table of the page."""
    show(
        "Coverage of the 95 % interval for a mean paired difference (%; it lies too low / too high)",
        ("differences", *(f"{seeds} seeds" for seeds in (*SEEDS, 50))),
        (
            (name, *("{:.1f} ({:.1f} / {:.1f})".format(*coverage(name, now, seeds)) for seeds in (*SEEDS, 50)))
            for name in DIFFERENCES
        ),
    )
    show(
        "Coverage of what might be used instead (%)",
        ("interval, differences", *(f"{seeds} seeds" for seeds in SEEDS)),
        (
            (f"{label}, {name}", *(coverage(name, method, seeds)[0] for seeds in SEEDS))
            for label, method in METHODS.items()
            if label != "now"
            for name in MILD[:2]
        ),
    )
    noises = (
        "normal",
        "exponential, skewness 2",
        "heavy tails (t with 3)",
        "one seed in ten 5 times as noisy",
    )
    show(
        "A/A comparisons that do not tie (%; nominal 5)",
        ("noise of a run", *(f"{seeds} seeds" for seeds in SEEDS)),
        ((noise, *(false_positives(noise, seeds) for seeds in SEEDS)) for noise in noises),
    )
    show(
        "A/A comparisons of several arms with one reference in which any does not tie (%; nominal 5)",
        ("arms, seeds", "each pair by itself", "Holm over the pairs"),
        ((f"{arms}, {seeds}", *false_alarms(arms, seeds)) for arms in (1, 3, 7) for seeds in (3, 5, 10)),
    )
    show(
        "Coverage of Welch's interval for a difference of two means (%)",
        ("values, scatter of the second side", *MILD),
        (
            (f"{first} and {second}, {scatter:g} x", *(welch_coverage(name, first, second, scatter) for name in MILD))
            for first, second, scatter in ((3, 3, 1), (3, 3, 3), (5, 5, 1), (5, 5, 3), (3, 10, 1), (3, 10, 3), (10, 10, 1), (20, 20, 3))
        ),
    )  # fmt: skip
    show(
        "Differences that are found with the seeds that `seeds_needed` gives, scatter known (%; promised 80)",
        ("difference in standard deviations, seeds", *(f"{name}: + / -" for name in MILD)),
        (
            (
                f"{difference:g}, {stats.seeds_needed(1.0, difference)}",
                *("{1:.1f} / {2:.1f}".format(*power_at_needed(name, difference)) for name in MILD),
            )
            for difference in (3.0, 1.5, 1.0, 0.65, 0.4)
        ),
    )
    show(
        "Differences as large as the MDE that are found (%; nominal 80)",
        ("seeds", "scatter known", "scatter of another experiment"),
        ((seeds, *power_at_detectable(seeds)) for seeds in SEEDS),
    )
    show(
        "Seeds for a difference of one standard deviation, power 80 %, planned from a pilot",
        ("seeds of the pilot", "needed", "median said", "power of what is said (%)"),
        ((pilot, *power_of_planned(pilot, 1.0)) for pilot in (3, 5, 10, 20)),
    )
    show(
        "P(better) said, and how often it is so (%)",
        ("seeds, true differences", *(f"{100 * low:g} to {100 * high:g}" for low, high in pairwise(BINS))),
        (
            (f"{seeds}, {spread:g} standard errors wide", *(f"{said:.1f}: {true:.1f}" for said, true in calibration(seeds, spread)))
            for seeds, spread in ((3, 10.0), (5, 10.0), (20, 10.0), (3, 1.0), (5, 1.0), (20, 1.0))
        ),
    )  # fmt: skip
    show(
        "Tables in which the truly best arm is not bold (%)",
        ("arms, equally good ones", "each test by itself", "Holm over a column"),
        (
            (
                f"{arms}, {level} with {seeds} seeds",
                lost_bold(arms, seeds, level, False),
                lost_bold(arms, seeds, level, True),
            )
            for seeds in (3, 5)
            for arms, level in ((2, 2), (4, 4), (8, 8), (8, 2), (8, 4))
        ),
    )
    show(
        "Coverage of the difference of interquartile means (%)",
        ("runs x columns", "tasks", "samples"),
        (
            (f"{runs} x {width}", iqm_coverage(runs, width, "tasks"), iqm_coverage(runs, width, "samples"))
            for runs, width in ((3, 6), (5, 6))
        ),
    )
    show(
        "Coverage of P(improvement) (%)",
        ("runs x tasks, truth", "now", "stratified percentile bootstrap"),
        (
            (f"{runs} x {tasks}, {100 * truth:g} %", *improvement_coverage(runs, tasks, truth))
            for runs, tasks in ((3, 1), (5, 1), (5, 4))
            for truth in (0.5, 0.75, 0.95)
        ),
    )
    show(
        "Coverage of the crossover (%)",
        ("seeds", "now", "seeds drawn with replacement"),
        ((seeds, *crossover_coverage(seeds)) for seeds in SEEDS[:3]),
    )
    show(
        "Coverage of a power law fitted to five points (%)",
        ("law, replicates a point", "exponent", "miss at the sixth"),
        (
            (f"{form}, {replicates}", *power_law_coverage(form, replicates))
            for form, replicates in (("saturating", 3), ("cost", 3))
        ),
    )


if __name__ == "__main__":
    main()
