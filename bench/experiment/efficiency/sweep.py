"""Some of a task's measurements: the groups, calls and rows that one scaling curve needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from bench.errors import UserError
from bench.experiment.efficiency.spec import Row, Sizes, TaskEfficiency, TimedCall


@dataclass(frozen=True)
class Sweep:
    """What to measure instead of everything."""

    name: str
    """Stands in the record: tables of the whole task cannot be set from such a folder."""
    groups: tuple[Sizes, ...]
    """Shapes to be timed; they need be none of the task's own."""
    calls: frozenset[tuple[str, str]]
    """Label and mode of the calls that are timed in each."""
    counted: frozenset[tuple[str, str]]
    """Label and mode of the rows that are counted at each size of `at`."""
    at: tuple[Sizes, ...]
    """A row is meant that has these sizes (and maybe more); where the task has none, one of its own is taken to that size."""
    varied: str
    """The size that differs among `at`."""


class SweptEfficiency:
    """A task's part that offers what a sweep needs, and nothing else."""

    def __init__(self, whole: TaskEfficiency, sweep: Sweep) -> None:
        """Restrict `whole`.

        Raises:
            UserError: the task has none of the rows that are to be counted.
        """
        self._whole, self._sweep = whole, sweep
        self.training, self.rounds, self.limit_seconds = whole.training, whole.rounds, whole.limit_seconds
        self.rows: Sequence[Row] = tuple(
            self._row(label, mode, at) for label, mode in sorted(sweep.counted) for at in sweep.at
        )

    def _row(self, label: str, mode: str, at: Sizes) -> Row:
        rows = [row for row in self._whole.rows if (row.label, row.mode) == (label, mode)]
        others = {key: size for key, size in at.items() if key != self._sweep.varied}
        for wanted in (at, others):
            for row in rows:
                if wanted.items() <= row.sizes.items() and self._sweep.varied in row.sizes:
                    return replace(row, sizes={**row.sizes, **at})
        where = f" at {', '.join(f'{key} {size}' for key, size in others.items())}" if rows and others else ""
        raise UserError(f"{self._sweep.name}: arms: counted: no row {label!r} (mode {mode!r}){where} is counted")

    def check(self, preset: str) -> None:
        """Raise what `calls` would, and refuse an axis on which nothing depends; makes the calls on the meta device.

        Raises:
            UserError: the task makes no such call, needs another size, or makes the same calls all along the axis.
        """
        if not self._sweep.groups:
            return
        with torch.device("meta"):
            models = self.models(preset)
        meta = torch.device("meta")
        made = [
            [(call.label, call.mode, call.flops, call.extent) for call in self.calls(models, sizes, preset, meta, 0)]
            for sizes in self._sweep.groups
        ]
        if all(calls == made[0] for calls in made):
            raise UserError(
                f"{self._sweep.name}: axis: no call depends on {self._sweep.varied!r}; name a size of the task's"
            )

    def groups(self, preset: str) -> tuple[Sizes, ...]:
        """Those of the sweep, whatever the preset."""
        return self._sweep.groups

    def counted(self, row: Row) -> Any:
        """As of the whole task."""
        return self._whole.counted(row)

    def setting(self, preset: str) -> dict[str, Any]:
        """As of the whole task."""
        return self._whole.setting(preset)

    def models(self, preset: str) -> dict[str, nn.Module]:
        """As of the whole task."""
        return self._whole.models(preset)

    def calls(
        self, models: Mapping[str, nn.Module], sizes: Sizes, preset: str, device: torch.device, seed: int
    ) -> list[TimedCall]:
        """The calls of a group that the sweep is about.

        Raises:
            UserError: the task makes no such call on these sizes.
        """
        try:
            made = self._whole.calls(models, sizes, preset, device, seed)
        except KeyError as error:
            raise UserError(f"{self._sweep.name}: timed_at: needs the size {error.args[0]!r}; add it") from None
        chosen = [call for call in made if (call.label, call.mode) in self._sweep.calls]
        if missing := self._sweep.calls - {(call.label, call.mode) for call in chosen}:
            label, mode = min(missing)
            known = ", ".join(sorted({f"{call.label} ({call.mode})" for call in made}))
            raise UserError(f"{self._sweep.name}: arms: timed: no call {label!r} (mode {mode!r}) here; known: {known}")
        return chosen
