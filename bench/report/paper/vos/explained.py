"""Sentences on why measured ratios are not those by FLOPs, with what the times themselves say of the reason."""

from __future__ import annotations

from bench.report import text
from bench.report.paper.published import Published
from bench.report.paper.quantities import quotient
from bench.report.paper.ratios import apart, shown
from bench.report.paper.vos.quantities import (
    BLOCKS,
    DENSE,
    FRAMES,
    NAMES,
    SWEPT_AT,
    TOKENS,
    Method,
    frame,
    matrix_bytes,
    operation,
)
from bench.store.efficiency import Efficiency

REASONS: dict[Method, str] = {
    ("dense", "usage"): "queries, keys and values are copied to be wider",
    ("dense", "eager"): "the matrix is written, read by the softmax, written and read again",
    ("topk-all", "full"): "search, zeros and scatter are no FLOPs",
    ("topk-each", "full"): "search, zeros and scatter are no FLOPs, and more keys are kept",
    ("topk-all", "mask"): "the scores are computed twice, and search and mask are no FLOPs",
    ("topk-all", "gather"): "every query and head fetches its own keys, which is no FLOP",
    ("topk-all", "bag"): "search and weighing are no FLOPs",
    ("shared-subset", "full"): "choosing and fetching are hardly any FLOPs",
    ("flex", "full"): "choosing blocks and skipping through them are hardly any FLOPs",
}
"""Why an attention takes longer than its FLOPs say."""


def differences(efficiency: Efficiency, published: Published) -> list[str]:
    """A sentence on every attention whose measured ratio to fused dense attention FLOPs do not give."""
    said = []
    for method, reason in REASONS.items():
        sides: dict[str, list[tuple[float, float, str]]] = {}
        for tokens in TOKENS:
            for frames in FRAMES:
                dense, call = (operation(efficiency, each, tokens, frames) for each in (DENSE, method))
                ratio = apart(call, dense)
                if ratio is not None:
                    place = f"{tokens} tokens, {frames} frame{'' if frames == 1 else 's'}"
                    sides.setdefault(ratio.side, []).append((ratio.measured.value, ratio.flops, place))
        for side, found in sides.items():
            said.append(_sentence(NAMES[method], side, found, reason))
    return [*said, *_parts(efficiency), *_crossover(efficiency), *_theirs(efficiency, published)]


def _sentence(name: str, side: str, found: list[tuple[float, float, str]], reason: str) -> str:
    low, high = min(found), max(found)
    values = f"{low[0]:.2f} ({low[2]})"
    if len(found) > 1:
        values += f" to {high[0]:.2f} ({high[2]})"
    flops = sorted(each for _, each, _ in found)
    counted = f"{flops[0]:.2f}" if f"{flops[0]:.2f}" == f"{flops[-1]:.2f}" else f"{flops[0]:.2f} to {flops[-1]:.2f}"
    why = (
        reason
        if side == "above"
        else "larger products run at more FLOPs a second, or what is fixed weighs more in the dense one"
    )
    return f"{name[0].upper()}{name[1:]}: {values} times fused dense attention measured, {side} the {counted} by FLOPs: {why}."


def _parts(efficiency: Efficiency) -> list[str]:
    """What selection alone takes."""
    said = []
    for tokens in TOKENS:
        dense = operation(efficiency, DENSE, tokens, SWEPT_AT[1])
        scores, search = (
            quotient(operation(efficiency, ("parts", mode), tokens, SWEPT_AT[1]), dense)
            for mode in ("scores", "selection")
        )
        if scores is not None and search is not None:
            said.append(
                f"At {tokens} tokens and {SWEPT_AT[1]} frames the scores alone take {shown(scores)} and the search for the "
                f"largest of them alone {shown(search)} times the whole of fused dense attention, which never writes its matrix "
                f"({text.significant(matrix_bytes(tokens, SWEPT_AT[1]) / 1e6)} MB)."
            )
    return said


def crossings(efficiency: Efficiency) -> tuple[list[str], int]:
    """Where an exact top-K is faster than fused dense attention (the interval is below 1), and out of how many places."""
    found, places = [], 0
    for tokens in TOKENS:
        for frames in FRAMES:
            dense = operation(efficiency, DENSE, tokens, frames)
            for method in NAMES:
                ratio = quotient(operation(efficiency, method, tokens, frames), dense)
                if not method[0].startswith("topk") or ratio is None:
                    continue
                places += 1
                if ratio.interval is not None and ratio.interval.high < 1:
                    found.append(f"{NAMES[method]}, {tokens} tokens, {frames} frames: {shown(ratio)}")
    return found, places


def _crossover(efficiency: Efficiency) -> list[str]:
    found, places = crossings(efficiency)
    if not places:
        return []
    if found:
        return [f"Faster than fused dense attention is top-K in {len(found)} of {places} places: {'; '.join(found)}."]
    return [f"Top-K is faster than fused dense attention in none of {places} places: there is no crossover here."]


def _theirs(efficiency: Efficiency, published: Published) -> list[str]:
    """How many of the published ratios the intervals here hold."""
    inside, outside = 0, []
    for tokens in TOKENS:
        for frames in FRAMES:
            reference = published.get(f"dense/full {tokens} {frames}")
            for method in REASONS:
                theirs = published.get(f"{'/'.join(method)} {tokens} {frames}")
                dense, call = (operation(efficiency, each, tokens, frames) for each in (DENSE, method))
                ours = quotient(call, dense)
                if theirs is None or reference is None or ours is None or ours.interval is None:
                    continue
                if ours.interval.contains(theirs / reference):
                    inside += 1
                else:
                    outside.append(ours.value / (theirs / reference))
    if not outside:
        return []
    return [
        f"Of the {inside + len(outside)} ratios of the published run that were measured here, {inside} lie within our intervals; "
        f"the others are {min(outside):.2f} to {max(outside):.2f} times theirs: another processor, other caches, one run each."
    ]


def of_frames(efficiency: Efficiency) -> list[str]:
    """A sentence on every whole frame whose measured ratio FLOPs do not give."""
    said = []
    for tokens in TOKENS:
        for frames in FRAMES:
            base, read = (frame(efficiency, "dense", mode, tokens, frames) for mode in ("full", "read"))
            ratio = apart(base, read)
            if ratio is None:
                continue
            why = (
                "its attention matrix is written out" if ratio.side == "above"
                else "its products over all memory tokens are larger, and what is no FLOP weighs more in the cached one"
            )  # fmt: skip
            place = f"{tokens} tokens, {frames} frame{'' if frames == 1 else 's'}"
            said.append(f"{place}: {ratio.told('the published read', 'the cached one')}: {why}.")
    return said


def skipped(efficiency: Efficiency, blocks: int) -> list[str]:
    """A sentence on each call that was not timed, of operations (1 block) or whole frames (11)."""
    return [
        f"Not timed: {NAMES.get((call.label, call.mode), f'{call.label}, {call.mode}') if blocks == 1 else _of_frame(call.label, call.mode)}, "
        f"{made.sizes['tokens']} tokens, {made.sizes['frames']} frames: {call.skipped}."
        for made in efficiency.groups
        for call in made.calls
        if call.skipped and (made.sizes["blocks"] == BLOCKS) == (blocks == BLOCKS)
    ]


def _of_frame(label: str, mode: str) -> str:
    return "the published read" if mode == "full" else f"{label.removeprefix('frame ')}, {mode}"
