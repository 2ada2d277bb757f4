"""The conformance kit behind ``isochron check``: does an architecture keep the contract that a fair comparison needs?

`check` builds the architecture afresh for every check, feeds it synthetic batches of the task, and answers with one
`Finding` a check. Each check stands alone: whatever an architecture does, the others still run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from bench.conformance.case import Case, Failure, asks_for_target
from bench.conformance.checks import CHECKS
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.contracts import Task

__all__ = ["Finding", "check"]


class Finding(NamedTuple):
    """Outcome of one check."""

    name: str
    passed: bool
    detail: str
    """One line: what was found and, where it failed, the mend."""


def check(
    build: Callable[[], nn.Module],
    task: Task,
    device: torch.device | str = "cpu",
    *,
    batch_size: int = 2,
    memory: Callable[[int], int] | None = None,
) -> list[Finding]:
    """Judge an architecture on synthetic batches of `task`; no data is read and the random state is left as it was.

    Args:
        build: makes the architecture; called many times, each time under a known seed.
        task: gives fields, loss, symmetries and batches. Its optional members ``synthetic(batch_size, seed)`` (random
            legal host batches) and ``edge_cases(batch_size)`` (degenerate legal host batches by name) are used where
            they exist; otherwise every batch is ``worst_case``.
        device: where to run.
        batch_size: samples in a batch, at least 2.
        memory: measures the peak bytes of a training step at a batch size; by default the tensors alive at once are
            counted, which takes no device memory meter.

    Returns:
        One finding a check, in a fixed order. If the architecture cannot be built or run at all, one finding stands for
        all the checks that would need it.
    """
    case = Case(build, task, torch.device(device), max(2, batch_size), memory)
    cuda = (
        [torch.cuda.current_device() if case.device.index is None else case.device.index]
        if case.device.type == "cuda"
        else []
    )
    findings: list[Finding] = []
    with torch.random.fork_rng(devices=cuda):
        for name, run, essential in CHECKS:
            passed, detail = _judge(run, case)
            findings.append(Finding(name, passed, detail))
            if essential and not passed:
                findings.append(Finding("all other checks", False, f"not run, because '{name}' failed"))
                break
    return findings


def _judge(run: Callable[[Case], str], case: Case) -> tuple[bool, str]:
    try:
        return True, run(case)
    except (Failure, UserError) as failure:
        return False, str(failure)
    except KeyError as error:
        if error.args and error.args[0] in case.task.target_fields:
            return False, asks_for_target(str(error.args[0]))
        return False, f"{type(error).__name__}: {error}"
    except Exception as error:  # an architecture may fail in any way: that is a finding, not the end of the check
        line = next(iter(str(error).splitlines()), "")
        return False, f"{type(error).__name__}: {line[:300]}"
