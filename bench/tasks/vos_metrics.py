"""What the records of the task ``vos`` hold, and how tables name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.contracts import Metric
from bench.metrics import video

if TYPE_CHECKING:
    from bench.tasks.vos_config import VOSConfig

SHIFTED = "j_shifted"
"""Name of the metric that is J of the clips of ``shifted``."""

USAGE = {
    "query": "the frame itself",
    "first": "the frame in which the object was given",
    "last": "the frame before, unless that is the first",
    "other": "other frames in memory",
}
"""Where attention may go."""

REAL_SIZE = (480, 854)
"""Height and width for which the tolerance of real video is told, and on which inference is timed: those of DAVIS; each clip has its own."""


def metrics(config: VOSConfig) -> tuple[Metric, ...]:
    """J first; what is scored beside it follows, most of it in tables of its own."""
    height, width = (config.image_size,) * 2 if config.embedded else REAL_SIZE
    near = f"ceil({video.TOLERANCE} diagonal) pixels, {video.tolerance(height, width)} px at {height} x {width}"
    return (
        _percent("j", "J", f"intersection over union, 1 where both are empty; {video.CONVENTIONS}"),
        _percent(
            "f",
            "F",
            f"harmonic mean of boundary precision and recall; boundaries match within {near}; both empty 1, one empty 0",
        ),
        _percent("jf", "J&F", "mean of J and F"),
        _percent(
            "miou",
            "mIoU",
            "over the frames of J, of an object and of all that is not the object: summed intersection over summed union",
        )._replace(aggregate="pooled"),
        *_over_time("j", "J"),
        *_over_time("f", "F"),
        *_by_factor(config),
        *(
            _percent(
                usage_key(part),
                f"attention on {part}",
                f"share of the attention of a frame's tokens that goes to {meaning}; mean over blocks and frames",
                "memory usage",
            )._replace(higher_is_better=None)
            for part, meaning in USAGE.items()
        ),
    )


def factor_key(factor: str) -> str:
    """Name of the metric that is J of the clips with `factor` alone."""
    return f"j_{factor}"


def usage_key(part: str) -> str:
    """Name of the metric that is the share of attention on `part` of `USAGE`."""
    return f"usage_{part}"


def _over_time(key: str, name: str) -> tuple[Metric, Metric]:
    note = f"mean {name} in the first quarter of an object's frames less that in the last quarter"
    decay = Metric(f"{key}_decay", f"{name} decay", False, 1, note, group="recall and decay")
    share = f"share of an object's frames with {name} above {100 * video.RECALLED:g} %"
    return _percent(f"{key}_recall", f"{name} recall", share, "recall and decay"), decay


def _by_factor(config: VOSConfig) -> tuple[Metric, ...]:
    if not config.embedded:
        return ()
    found = [
        _percent(factor_key(factor), f"J, {factor}", f"J of the clips with the factor {factor} alone", "by factor")
        for factor in config.factors
    ]
    if "shifted" in config.splits:
        note = "J of clips whose patterns are of kinds that occur in no other split"
        found.append(_percent(SHIFTED, "J, other patterns", note, "by factor"))
    return tuple(found)


def _percent(key: str, name: str, note: str, group: str = "") -> Metric:
    return Metric(key, f"{name} (%)", True, 1, note, group=group)
