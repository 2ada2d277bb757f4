"""Durations and sizes as people write them."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)\s*$")
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)\s*$")
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def parse_duration(text: str | float) -> float:
    """Seconds from ``45s``, ``10m``, ``24h``, ``250ms`` (a bare number is seconds).

    Raises:
        ValueError: the text is no duration > 0.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        seconds = float(text)
    else:
        match = _DURATION.match(str(text))
        if match is None:
            raise ValueError(f"{text!r} is no duration; write it as 45s, 10m or 24h")
        seconds = float(match[1]) * _SECONDS[match[2]]
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(f"must be > 0 seconds, got {text!r}")
    return seconds


def parse_size(text: str | int) -> int:
    """Bytes from ``512MiB``, ``2GiB``, ``1.5GB`` (a bare number is bytes).

    Raises:
        ValueError: the text is no size > 0.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        size = text
    else:
        match = _SIZE.match(str(text))
        if match is None:
            raise ValueError(f"{text!r} is no size; write it as 512MiB or 2GiB")
        size = int(float(match[1]) * _BYTES[match[2]])
    if size <= 0:
        raise ValueError(f"must be > 0 bytes, got {text!r}")
    return size


Duration = Annotated[float, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]
