"""Every published claim beside what was counted and measured here, or why it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.report.paper.claims_table import Verdict, claims_table, counted, untested
from bench.report.paper.layout import PaperTable
from bench.report.paper.published import Published
from bench.report.paper.quantities import Theirs, latency, over, quotient
from bench.report.paper.ratios import shown
from bench.report.paper.vos.explained import crossings
from bench.report.paper.vos.quantities import (
    BLOCKS,
    DENSE,
    K_SWEEP,
    SWEPT_AT,
    TRAINED,
    WIDTH,
    Method,
    behind_the_trunk,
    cache_bytes,
    count,
    frame,
    group,
    here,
    matrix_bytes,
    memory_flops,
    operation,
)
from bench.stats import Estimate
from bench.store.efficiency import Efficiency

BENCHMARK = (
    "the data are not part of Isochron and the training is days on several GPUs; the comparison vos-topk trains on embedded "
    "clips, from which nothing follows for this benchmark; real DAVIS and YouTube-VOS folders are scored by the same definitions"
)
OTHERS = "another architecture, which is not built here"
QUALITY = (
    "quality is no matter of counting and timing; vos-topk trains dense and top-K reads on embedded clips for equal time, the "
    "dense one with a learned temperature too"
)


def claims(efficiency: Efficiency, published: Theirs) -> PaperTable:
    """One row for every entry of the published numbers."""
    notes = (
        "Ratios: over fused dense attention, or the published read over the cached one.",
        here(efficiency, "one object"),
    )
    return claims_table("Claims, and what was tested here", published, RULES, efficiency, notes)


def _by_key(value: Callable[[Efficiency, int, int], float | None], what: str = "counted") -> Verdict:
    """Compares numbers by tokens and frames."""

    def verdict(efficiency: Efficiency, entry: Published) -> str:
        pairs = {key: (value(efficiency, *map(int, key.split())), theirs) for key, theirs in entry.values.items()}
        return counted(pairs, what)

    return verdict


def _gflop(mode: str) -> Callable[[Efficiency, int, int], float | None]:
    def value(efficiency: Efficiency, tokens: int, frames: int) -> float | None:
        row = count(efficiency, "dense", mode, tokens, frames)
        return None if row is None else row.flops / 1e9

    return value


def _share(efficiency: Efficiency, tokens: int, frames: int) -> float | None:
    read = count(efficiency, "dense", "read", tokens, frames)
    return None if read is None else 100 * memory_flops(tokens, frames) / read.flops


def _bound(efficiency: Efficiency, tokens: int, frames: int) -> float | None:
    share = _share(efficiency, tokens, frames)
    return None if share is None else 1 / (1 - share / 100)


def _parameters(efficiency: Efficiency, entry: Published) -> str:
    row = count(efficiency, "dense", "query", 576)
    pairs = {"backbone": (None if row is None else row.parameters / 1e6, entry["backbone"])}
    return f"{counted(pairs)}; the whole: not testable here: it has class tokens, which the notes' model has not"


def _frame_parts(efficiency: Efficiency, entry: Published) -> str:
    trunk, write = (_gflop(mode)(efficiency, 576, 0) for mode in ("query", "write"))
    values = 4 * BLOCKS * 576 * WIDTH**2 / 1e9
    said = counted({"trunk": (trunk, entry["trunk"]), "keys and values": (values, entry["keys and values"])})
    whole = "" if write is None else f"; a whole write, from picture to keys and values, is {write:.0f} GFLOP"
    return said + whole


def _times(mode: str) -> Verdict:
    def verdict(efficiency: Efficiency, entry: Published) -> str:
        took = {
            key: (latency(frame(efficiency, "dense", mode, *map(int, key.split()))), theirs)
            for key, theirs in entry.values.items()
        }
        ratios = [ours.value / theirs for ours, theirs in took.values() if ours is not None]
        if not ratios:
            return untested("no such time was measured")
        return (
            f"measured: {min(ratios):.2f} to {max(ratios):.2f} times their ms in {len(ratios)} of {len(entry.values)} places; "
            "the ratios stand in the table frames"
        )

    return verdict


def _parts_time(efficiency: Efficiency, entry: Published) -> str:
    trunk, write = (latency(frame(efficiency, "parts", mode, 576, 1)) for mode in ("query", "write"))
    if trunk is None or write is None:
        return untested("the parts were not timed")
    return (
        f"measured: trunk {trunk.value:.0f} ms; a whole write {write.value:.0f} ms, of which keys and values are a part"
    )


def _saving(efficiency: Efficiency, entry: Published) -> str:
    """What caching is worth where the bar is set."""
    base, again, read = (frame(efficiency, "dense", mode, *SWEPT_AT) for mode in ("full", "recompute", "read"))
    whole, alone = quotient(base, read), behind_the_trunk(efficiency, again, read, *SWEPT_AT)
    parts = [
        f"{name} {shown(value)}"
        for name, value in (("whole frame as published", whole), ("fused in both, without the trunk", alone))
        if value is not None
    ]
    said = f"; caching at 576 tokens, 4 frames: {', '.join(parts)} times as fast" if parts else ""
    return _times("full")(efficiency, entry) + said


def _speed(efficiency: Efficiency, entry: Published) -> str:
    found, places = crossings(efficiency)
    if not places:
        return untested("no top-K was timed")
    if found:
        return f"measured: faster than fused dense attention in {len(found)} of {places} places: {'; '.join(found)}"
    return f"measured: faster than fused dense attention in none of {places} places; top-K buys no speed here"


def _k(efficiency: Efficiency, entry: Published) -> str:
    found = {
        topk: ratio
        for topk in K_SWEEP
        if (
            ratio := quotient(
                *(operation(efficiency, method, *SWEPT_AT, topk) for method in (("topk-all", "full"), DENSE))
            )
        )
        is not None
    }
    if not found:
        return untested("K was not varied")
    ends = [f"{shown(found[topk])} at K {topk}" for topk in (min(found), max(found))]
    return f"measured: cost alone: top-K, scattered, is {ends[0]} and {ends[1]} times fused dense attention; which K is best: {QUALITY}"


def _operations(backward: bool) -> Verdict:
    def verdict(efficiency: Efficiency, entry: Published) -> str:
        inside, ratios = 0, []
        for key, theirs in entry.values.items():
            name, tokens, frames, *topk = key.split()
            label, mode = name.split("/")
            where = int(tokens), int(frames), *map(int, topk)
            reference = entry.get(" ".join(("dense/full", tokens, frames, *topk)))
            ours = _over_dense(efficiency, (label, mode), where, backward)
            if (label, mode) == DENSE or reference is None or ours is None:
                continue
            inside += bool(ours.interval is not None and ours.interval.contains(theirs / reference))
            ratios.append(ours.value / (theirs / reference))
        if not ratios:
            return untested("none of these was timed")
        return (
            f"measured: {len(ratios)} ratios to fused dense attention, {inside} of them hold theirs in their interval; ours are "
            f"{min(ratios):.2f} to {max(ratios):.2f} times theirs"
        )

    return verdict


def _over_dense(efficiency: Efficiency, method: Method, where: tuple[int, ...], backward: bool) -> Estimate | None:
    calls = (operation(efficiency, each, *where, backward=backward) for each in (method, DENSE))
    return quotient(*calls)


def _selection(efficiency: Efficiency, entry: Published) -> str:
    dense = operation(efficiency, DENSE, *SWEPT_AT)
    said = []
    for mode in ("scores", "selection"):
        ours, theirs = quotient(operation(efficiency, ("parts", mode), *SWEPT_AT), dense), entry[mode]
        if ours is not None:
            said.append(f"{mode} {shown(ours)} (theirs {theirs / entry['whole dense attention']:.2f})")
    return f"measured: over fused dense attention: {', '.join(said)}" if said else untested("the parts were not timed")


def _whole_model(efficiency: Efficiency, entry: Published) -> str:
    read = frame(efficiency, "dense", "read", *SWEPT_AT)
    said = []
    for label in ("topk-all", "topk-each"):
        ours = quotient(frame(efficiency, label, "read", *SWEPT_AT), read)
        if ours is not None:
            theirs = over(entry.get(f"{label} 576 4"), entry.get("dense 576 4")) or 0.0
            said.append(f"{label} {shown(ours)} times dense (theirs {theirs:.2f}, dense not fused and nothing cached)")
    if not said:
        return untested("no whole frame with top-K was timed")
    return f"measured: 4 frames, keys and values cached: {', '.join(said)}"


def _bytes(value: Callable[..., int]) -> Verdict:
    def verdict(efficiency: Efficiency, entry: Published) -> str:
        pairs = {key: (value(*map(int, key.split())) / 1e6, theirs) for key, theirs in entry.values.items()}
        return counted(pairs, digits=entry.digits)

    return verdict


def _gpu(efficiency: Efficiency, entry: Published) -> str:
    calls = (operation(efficiency, each, 1620, 4) for each in (("topk-all", "full"), DENSE))
    ratio = quotient(*calls)
    if efficiency.record.device.kind != "cuda" or ratio is None:
        return untested(
            "these times are of a CPU; `isochron measure-efficiency vos --device cuda --preset paper` measures it"
        )
    return f"measured: {shown(ratio)} times, {efficiency.record.device.name}"


def _trained(efficiency: Efficiency, entry: Published) -> str:
    places = sum(group(efficiency, *where, backward=True) is not None for where in TRAINED)
    return _operations(True)(efficiency, entry) if places else untested("no training was timed")


def _flex(efficiency: Efficiency, entry: Published) -> str:
    call = operation(efficiency, ("flex", "full"), *SWEPT_AT)
    if call is None or call.skipped:
        return untested(call.skipped if call is not None else "it was not timed")
    return _operations(False)(efficiency, entry) + "; blocks are a quarter of the memory's here"


def _never(reason: str) -> Verdict:
    return lambda efficiency, entry: untested(reason)


RULES: Mapping[str, Verdict] = {
    **dict.fromkeys(("jointformer-s2", "jointformer-s02", "jointformer-s012", "jointformer-more"), _never(BENCHMARK)),
    **dict.fromkeys(("xmem-accuracy", "xmem-speed", "xmem-retrained", "simvos"), _never(OTHERS)),
    "mivos-topk": _never(QUALITY),
    "joint-topk": _never(QUALITY),
    "topk-speed": _speed,
    "topk-default": _k,
    "topk-tuned": _k,
    "parameters": _parameters,
    "read-cached": _by_key(_gflop("read")),
    "read-official": _by_key(_gflop("recompute")),
    "frame-parts": _frame_parts,
    "memory-share": _by_key(_share),
    "bound": _by_key(_bound),
    "cache-bytes": _bytes(cache_bytes),
    "matrix-bytes": _bytes(matrix_bytes),
    "read-cached-time": _times("read"),
    "read-official-time": _saving,
    "parts-time": _parts_time,
    "operation": _operations(False),
    "operation-by-k": _operations(False),
    "operation-training": _trained,
    "operation-usage": _operations(False),
    "operation-blocks": _flex,
    "selection": _selection,
    "whole-model": _whole_model,
    "gpu-expected": _gpu,
}
"""Published name -> what is said of it. Nothing is quoted of JointFormer's speed: its authors give none."""
