"""What the tables and figures of video object segmentation read from the measurements."""

from __future__ import annotations

import statistics

from bench.report.paper import quantities
from bench.stats import Estimate, median_interval
from bench.store.efficiency import Call, Count, Efficiency, Group

TOKENS = (144, 576, 1620)
PIXELS = {144: "192 x 192", 576: "384 x 384", 1620: "480 x 864"}
"""Tokens of a frame -> its size in pixels."""
FRAMES = (1, 2, 4, 8)
TOPK = 60
K_SWEEP = (8, 20, 30, 60, 120)
SWEPT_AT = (576, 4)
"""Tokens and frames at which K is varied."""
TRAINED = ((144, 3, 16), (576, 2, TOPK))
"""Tokens, frames and K that are timed forward and backward."""
WIDTH, BLOCKS, HEADS = 768, 11, 12
LARGE = "dense-large"

Method = tuple[str, str]
"""Label and mode of an operation."""
DENSE: Method = ("dense", "full")
NAMES: dict[Method, str] = {
    DENSE: "dense, fused",
    ("dense", "usage"): "dense, fused, with usage",
    ("dense", "eager"): "dense, matrix written out",
    ("topk-all", "full"): "top-K of all, scattered",
    ("topk-each", "full"): "top-K of each frame, scattered",
    ("topk-all", "mask"): "top-K of all, as a mask",
    ("topk-all", "gather"): "top-K of all, gathered",
    ("topk-all", "bag"): "top-K of all, embedding bag",
    ("shared-subset", "full"): "a shared quarter of the tokens",
    ("flex", "full"): "blocks of keys, FlexAttention",
}
DESIGNS = {
    "dense": "dense",
    "topk-all": "top-K of all",
    "topk-each": "top-K of each frame",
    "shared-subset": "a shared quarter of the tokens",
}
"""Label of a whole frame's design -> its name."""


def count(efficiency: Efficiency, label: str, mode: str, tokens: int, frames: int = 0) -> Count | None:
    """The counted row of a part of a frame."""
    return efficiency.count(label, {"tokens": tokens, "frames": frames}, mode)


def group(
    efficiency: Efficiency, tokens: int, frames: int, topk: int = TOPK, blocks: int = 1, *, backward: bool = False
) -> Group | None:
    """The timed group of one operation, or of whole frames (11 blocks)."""
    wanted = {"tokens": tokens, "frames": frames, "topk": topk, "blocks": blocks, "backward": int(backward)}
    return next((made for made in efficiency.groups if made.sizes == wanted), None)


def operation(
    efficiency: Efficiency, method: Method, tokens: int, frames: int, topk: int = TOPK, *, backward: bool = False
) -> Call | None:
    """The timed call of one attention operation."""
    return _call(group(efficiency, tokens, frames, topk, backward=backward), method)


def frame(efficiency: Efficiency, label: str, mode: str, tokens: int, frames: int) -> Call | None:
    """The timed call of a whole frame or a part of it."""
    return _call(group(efficiency, tokens, frames, blocks=BLOCKS), (f"frame {label}", mode))


def _call(found: Group | None, method: Method) -> Call | None:
    calls = () if found is None else found.calls
    return next((call for call in calls if (call.label, call.mode) == method), None)


def behind_the_trunk(
    efficiency: Efficiency, first: Call | None, second: Call | None, tokens: int, frames: int
) -> Estimate | None:
    """`first` over `second` without the query's convolution trunk, which both have, round by round."""
    trunk = frame(efficiency, "parts", "query", tokens, frames)
    if first is None or second is None or trunk is None or not (first.times_ms and second.times_ms and trunk.times_ms):
        return None
    usual = statistics.median(trunk.times_ms)  # of all rounds: its own noise is none of theirs
    return median_interval(
        [(one - usual) / (other - usual) for one, other in zip(first.times_ms, second.times_ms, strict=True)]
    )


def memory_flops(tokens: int, frames: int, blocks: int = BLOCKS, width: int = WIDTH) -> int:
    """FLOPs of attention to the memory in a frame: two products with its tokens in every block."""
    return 4 * blocks * tokens * frames * tokens * width


def cache_bytes(tokens: int) -> int:
    """Keys and values of one frame and object in fp32."""
    return 4 * 2 * BLOCKS * tokens * WIDTH


def matrix_bytes(tokens: int, frames: int) -> int:
    """The attention matrix of one block and object in fp32, written out."""
    return 4 * HEADS * tokens * (1 + frames) * tokens


def here(efficiency: Efficiency, call: str) -> str:
    """The sentence that says where and how times were measured."""
    return quantities.here(efficiency, f"the published width (preset {efficiency.record.preset})", call)
