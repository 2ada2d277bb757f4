"""What the options of several tasks are checked for."""

from __future__ import annotations

from typing import Any


def is_count(value: Any, smallest: int) -> bool:
    """Whether `value` is a whole number of at least `smallest`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= smallest


def is_number(value: Any) -> bool:
    """Whether `value` is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
