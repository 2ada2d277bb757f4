"""A block: one seed, all arms, interleaved in slices so that a machine that speeds up or slows down does so for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from bench.contracts import Clock
from bench.engine.clock import NANOSECONDS
from bench.engine.run import Diverged, OutOfMemory
from bench.engine.stream import derive_seed
from bench.engine.trainer import Trainer

T = TypeVar("T")


class Interrupted(Exception):
    """The user asked to stop; the states to resume from are saved."""


def slice_order(arms: Sequence[T]) -> Iterator[list[T]]:
    """Endless rounds of slices: the arms in order, then in reverse (A B B A), the order rotated from pair to pair.

    Over any two consecutive rounds of a pair every arm has the same mean position; over a full rotation every arm
    stands everywhere equally often.
    """
    turn = 0
    while True:
        rotated = [*arms[turn % len(arms) :], *arms[: turn % len(arms)]]
        yield rotated
        yield rotated[::-1]
        turn += 1


def random_order(arms: Sequence[T], seed: int) -> list[T]:
    """The arms in an order drawn from the block's seed."""
    order = np.random.Generator(np.random.Philox(derive_seed(seed, "arm order"))).permutation(len(arms))
    return [arms[index] for index in order]


def run_block(
    trainers: Sequence[Trainer],
    *,
    slice_fraction: float,
    clock: Clock,
    sentinel: Callable[[str], float],
    sentinel_interval: float,
    checkpoint_interval: float,
    on_end: Callable[[Trainer, str, str], None],
    stop_requested: Callable[[], bool] = lambda: False,
) -> None:
    """Advance all runs of a block to their ends, in slices of `slice_fraction` of the budget.

    `sentinel(when)` measures the machine's speed and returns the seconds that took, shared equally by the runs; it is
    called at the start, at the end, and between rounds once `sentinel_interval` seconds have passed. States are saved
    between slices once `checkpoint_interval` seconds have passed. `on_end(trainer, status, reason)` is told how each run
    ended: at once if it failed, after the last sentinel if it finished.

    Raises:
        Interrupted: `stop_requested()` turned true; every state is saved.
    """
    open_runs = list(trainers)

    def watch_machine(when: str) -> None:
        seconds = sentinel(when)
        for trainer in open_runs:
            trainer.ledger.book_apart("sentinel", int(seconds * NANOSECONDS / len(open_runs)))

    going = [trainer for trainer in trainers if not trainer.finished]
    watch_machine("start")
    seen = saved = clock.now()
    reached = {id(trainer): trainer.budget.fraction for trainer in going}
    rounds = slice_order(random_order(list(going), going[0].settings.seed)) if going else iter(())
    for round_ in rounds:
        for trainer in round_:
            if trainer not in going:
                continue
            reached[id(trainer)] += slice_fraction  # a step longer than a slice waits until the others have caught up
            try:
                trainer.advance(reached[id(trainer)], stop_requested)
            except (Diverged, OutOfMemory) as error:
                going.remove(trainer)
                open_runs.remove(trainer)
                on_end(trainer, error.status, str(error))
                continue
            except Exception as error:
                error.add_note(f"{trainer.settings.arm}, seed {trainer.settings.seed}, step {trainer.steps + 1}")
                raise
            if stop_requested():
                for unfinished in going:
                    unfinished.save()
                raise Interrupted
            if trainer.finished:
                going.remove(trainer)
                trainer.save()
        now = clock.now()
        if now - saved > checkpoint_interval * NANOSECONDS:
            saved = now
            for trainer in going:
                trainer.save()
        if not going:
            break
        if now - seen > sentinel_interval * NANOSECONDS:
            seen = now
            watch_machine("between")
    watch_machine("end")
    for trainer in trainers:
        if trainer.finished:
            on_end(trainer, "finished", "")
