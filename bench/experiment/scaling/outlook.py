"""How far the measuring of scaling curves is, and about how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

NOMINAL_COST = 120.0
"""Seconds that a cost curve is taken to need before one has been measured here."""
NOMINAL_OVERHEAD = 2.0
"""The same of quality: how many times the charged seconds of its runs a point takes, evaluation and set-up included."""


@dataclass(frozen=True)
class Piece:
    """A cost curve, or a point of a quality curve."""

    curve: int
    """Number of its curve, from 1 on."""
    name: str
    """Stands at the head of the line."""
    charged: float | None
    """Seconds that its runs are charged in all; None of a cost curve, and of budgets that count steps or samples."""
    trains: bool
    done: bool
    """Whether it was measured before."""


class Outlook:
    """Says where the work is, piece by piece. What it takes here is learnt from the pieces that were measured."""

    def __init__(self, pieces: Sequence[Piece], clock: Callable[[], float] = time.monotonic) -> None:
        """Take all pieces, in the order in which they are measured."""
        self._pieces, self._clock = pieces, clock
        self._took: dict[int, float] = {}

    @contextmanager
    def at(self, number: int) -> Iterator[str]:
        """Yield the line for the beginning of piece `number`, and take its time."""
        started = self._clock()
        yield self._line(number)
        if not self._pieces[number].done:
            self._took[number] = self._clock() - started

    def left(self, number: int) -> float | None:
        """Seconds from the beginning of piece `number` to the end of all; None where nothing tells."""
        expected = [self._expected(piece) for piece in self._pieces[number:] if not piece.done]
        return None if None in expected else sum(each for each in expected if each is not None)

    def _line(self, number: int) -> str:
        piece, left = self._pieces[number], self.left(number)
        of = max(each.curve for each in self._pieces)
        rest = "" if left is None else f", about {self._shown(left)} left in all"
        return f"Curve {piece.curve} of {of}{rest}: {piece.name}"

    def _expected(self, piece: Piece) -> float | None:
        alike = {n: took for n, took in self._took.items() if self._pieces[n].trains == piece.trains}
        if piece.charged is not None:
            known = [(took, charged) for n, took in alike.items() if (charged := self._pieces[n].charged)]
            overhead = (
                sum(took for took, _ in known) / sum(charged for _, charged in known) if known else NOMINAL_OVERHEAD
            )
            return overhead * piece.charged
        if alike:
            return sum(alike.values()) / len(alike)
        return None if piece.trains else NOMINAL_COST

    @staticmethod
    def _shown(seconds: float) -> str:
        return f"{10 * round(seconds / 10) or 10:g} s" if seconds < 100 else f"{seconds / 60:.0f} min"
