"""``evaluation_index_re10k.json``: which frames of which test clips are context and target, as pixelSplat chose them.

``{scene: null | {"context": [left, right], "target": [a, b, c]}}``. What to know of it:

- 720 of its 7194 scenes are null (no pair of frames overlaps as asked for); they are left out, and counted.
- Targets lie between the contexts *inclusively*: some are a context frame, and the model is scored on copying it. With more
  input views, spread evenly from context to context, they become many.
- Two copies are in use, and they differ in the targets of one scene. Which one this is, is told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError

TELLTALE = "00e8df74b6805da7"
COPIES: dict[tuple[int, ...], str] = {(42, 51, 74): "pixelSplat's and LVSM's", (48, 55, 66): "Efficient-LVSM's"}
"""Targets of the scene `TELLTALE` in the published copies."""


@dataclass(frozen=True)
class EvaluationIndex:
    """The scenes that can be scored: frame numbers, in the order of the file."""

    path: Path
    context: dict[str, tuple[int, int]]
    """The outermost inputs."""
    target: dict[str, tuple[int, ...]]
    """As many for every scene."""
    nulls: int
    """Scenes that the file lists without frames."""

    @property
    def copy(self) -> str:
        """Whose copy this is."""
        return COPIES.get(self.target.get(TELLTALE, ()), "neither published")


def read_evaluation_index(path: Path) -> EvaluationIndex:
    """Read the file.

    Raises:
        UserError: missing, not of this form, or without a scene that can be scored; names the scene.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"evaluation index {path} cannot be read ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise UserError(f"evaluation index {path} must be an object of scenes, got {type(content).__name__}")
    context: dict[str, tuple[int, int]] = {}
    target: dict[str, tuple[int, ...]] = {}
    for key, entry in content.items():
        if entry is None:
            continue
        ends, aims = (_numbers(entry, name) for name in ("context", "target"))
        if len(ends) != 2 or ends[0] >= ends[1] or not aims:
            raise UserError(
                f"evaluation index {path}: scene {key} must be null or two contexts and targets, got {entry}"
            )
        context[key], target[key] = (ends[0], ends[1]), aims
    counts = {len(aims) for aims in target.values()}
    if len(counts) != 1:
        found = f"{min(counts)} to {max(counts)} targets a scene" if counts else "no scene with frames"
        raise UserError(f"evaluation index {path} must have as many targets for every scene, got {found}")
    return EvaluationIndex(path, context, target, len(content) - len(context))


def _numbers(entry: object, name: str) -> tuple[int, ...]:
    """The frame numbers that stand under `name`; none if anything else does."""
    numbers = entry.get(name) if isinstance(entry, Mapping) else None
    if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
        return ()
    return tuple(numbers)


def spread_inputs(context: NDArray[np.int64], input_views: int) -> NDArray[np.int64]:
    """Frames [B, Vi] from the left to the right context frame [B, 2], evenly, as Efficient-LVSM's evaluation has them.

    One input is the left context.

    Raises:
        UserError: a pair of contexts has fewer than Vi frames between them, themselves included.
    """
    room = int((context[:, 1] - context[:, 0]).min()) + 1
    if input_views > room:
        raise UserError(
            f"task.input_views: {input_views} inputs do not fit the {room} frames from context to context; ask for fewer"
        )
    return np.rint(np.linspace(context[:, 0], context[:, 1], input_views, axis=1)).astype(np.int64)


def equal_to_inputs(inputs: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[B, T]: which of the targets [B, T] are an input [B, Vi] of their scene."""
    return (targets[:, :, None] == inputs[:, None]).any(axis=-1)
