"""The tables of memory reading: claims, computation, one operation, K, training, whole frames."""

from __future__ import annotations

from typing import Any

from bench.report.paper.layout import Column, PaperTable, as_printed, number
from bench.report.paper.quantities import Theirs, latency, memory, over, quotient, sources
from bench.report.paper.ratios import agreement, show_ratio
from bench.report.paper.vos.claims import claims
from bench.report.paper.vos.explained import differences, of_frames, skipped
from bench.report.paper.vos.quantities import (
    DENSE,
    DESIGNS,
    FRAMES,
    K_SWEEP,
    LARGE,
    NAMES,
    PIXELS,
    SWEPT_AT,
    TOKENS,
    TOPK,
    TRAINED,
    behind_the_trunk,
    cache_bytes,
    count,
    frame,
    here,
    matrix_bytes,
    memory_flops,
    operation,
)
from bench.store.efficiency import Efficiency


def tables(efficiency: Efficiency, published: Theirs) -> list[PaperTable]:
    """All of them."""
    return [
        claims(efficiency, published),
        _computation(efficiency, published),
        _designs(efficiency),
        _operation(efficiency, published),
        _by_k(efficiency, published),
        _training(efficiency, published),
        _whole(efficiency, published),
    ]


def _gflop(efficiency: Efficiency, label: str, mode: str, tokens: int, frames: int = 0) -> float | None:
    row = count(efficiency, label, mode, tokens, frames)
    return None if row is None else row.flops / 1e9


def _computation(efficiency: Efficiency, published: Theirs) -> PaperTable:
    cached, official = published["read-cached"], published["read-official"]
    share, bound = published["memory-share"], published["bound"]
    rows = []
    for label, tokens in (*(("dense", each) for each in TOKENS), (LARGE, 576)):
        for frames in FRAMES:
            key = f"{tokens} {frames}" if label == "dense" else ""
            read = _gflop(efficiency, label, "read", tokens, frames)
            again = _gflop(efficiency, label, "recompute", tokens, frames)
            part = None if read is None or label == LARGE else memory_flops(tokens, frames) / read / 1e9
            rows.append(
                {
                    "model": f"{'Large' if label == LARGE else 'Base'}, {PIXELS[tokens]} px",
                    "tokens": tokens,
                    "frames": frames,
                    "query": _gflop(efficiency, label, "query", tokens),
                    "write": _gflop(efficiency, label, "write", tokens),
                    "read": read,
                    "read_run": cached.get(key),
                    "recompute": again,
                    "recompute_run": official.get(key),
                    "saving": over(again, read),
                    "saving_run": over(official.get(key), cached.get(key)),
                    "share": None if part is None else 100 * part,
                    "share_inferred": share.get(key),
                    "bound": None if part is None else 1 / (1 - part),
                    "bound_inferred": bound.get(key),
                    "counters": agreement(count(efficiency, label, "read", tokens, frames)),
                }
            )
    columns = (
        Column("model", "ConvMAE"),
        Column("tokens", "tokens"),
        Column("frames", "T"),
        Column("query", "trunk GFLOP", number(4)),
        Column("write", "write GFLOP", number(4)),
        Column("read", "cached read GFLOP", number(4)),
        Column("read_run", "theirs [run]", as_printed),
        Column("recompute", "published read GFLOP", number(4)),
        Column("recompute_run", "theirs [run]", as_printed),
        Column("saving", "published / cached", show_ratio),
        Column("saving_run", "theirs [run]", show_ratio),
        Column("share", "memory attention, %", number(3)),
        Column("share_inferred", "[inferred]", as_printed),
        Column("bound", "if it were free, times", show_ratio),
        Column("bound_inferred", "[inferred]", as_printed),
        Column("counters", "counters that agree exactly"),
    )
    values = published["frame-parts"]["keys and values"]
    notes = (
        "One object, forward, on the meta device; 2 FLOPs per multiply-add. T frames are in memory. A read is a whole frame: the "
        "query's convolution trunk (which all objects share) and the blocks. Cached: keys and values were kept when a frame was "
        "written. Published: every block projects all memory tokens and runs their MLP again, and throws the result away.",
        f"Write is the whole of it: trunk, self-attention and MLP of the frame in every block but the last. The {values:g} GFLOP "
        "that are given for writing are the projections to keys and values alone, from tokens that are known. What a write "
        "costs is spread over the frames between two of them, 5 as published.",
        "Memory attention: its two products, as a share of a cached frame, and how much faster a frame were without them. "
        "Counters: closed form, FlopCounterMode, fvcore.",
    )
    title = "Computation of a frame by frames in memory and size"
    return PaperTable(
        "computation", title, columns, tuple(rows), notes, sources(cached, official, share, bound), names=2
    )


def _designs(efficiency: Efficiency) -> PaperTable:
    rows = []
    for tokens in TOKENS:
        for frames in FRAMES:
            dense = _gflop(efficiency, "dense", "read", tokens, frames)
            ratios = {
                label: over(_gflop(efficiency, label, "read", tokens, frames), dense)
                for label in DESIGNS
                if label != "dense"
            }
            sizes = {
                "cache": frames * cache_bytes(tokens) / 1e6,
                "matrix": matrix_bytes(tokens, frames) / 1e6,
            }
            rows.append({"tokens": tokens, "frames": frames, "dense": dense, **ratios, **sizes})
    columns = (
        Column("tokens", "tokens"),
        Column("frames", "T"),
        Column("dense", "dense GFLOP", number(4)),
        *(Column(label, f"{name} / dense", show_ratio) for label, name in DESIGNS.items() if label != "dense"),
        Column("cache", "cache, MB", number(3)),
        Column("matrix", "matrix, MB", number(3)),
    )
    notes = (
        f"A whole cached frame of one object, FLOPs as executed; K = {TOPK}. Top-K that scatters its weights multiplies by the "
        "zeros as well: it saves no FLOP. Cache: keys and values of T frames and one object in fp32. Matrix: of one block, which "
        "fused attention never writes and every exact top-K does.",
    )
    return PaperTable("designs", "Computation and memory of the designs", columns, tuple(rows), notes, names=2)


def _row(efficiency: Efficiency, published: dict[str, float], method: tuple[str, str], where: tuple[int, ...], *,
         backward: bool = False) -> dict[str, Any] | None:  # fmt: skip
    """One operation over fused dense attention: here, by FLOPs and in the published run."""
    dense, call = (operation(efficiency, each, *where, backward=backward) for each in (DENSE, method))
    key = " ".join(map(str, where))
    theirs, reference = (published.get(f"{label}/{mode} {key}") for label, mode in (method, DENSE))
    if call is None and theirs is None:
        return None
    taken = memory(call)
    return {
        "tokens": where[0],
        "frames": where[1],
        "method": NAMES[method],
        "ms": latency(call),
        "here": quotient(call, dense),
        "flops": over(None if call is None else call.flops, None if dense is None else dense.flops),
        "run": over(theirs, reference),
        "ms_run": theirs,
        "memory": None if taken is None or method[0] == "flex" else taken / 2**20,
        "deviation": None if call is None else call.deviation,
    }


OPERATION = (
    Column("tokens", "tokens"),
    Column("frames", "T"),
    Column("method", "attention"),
    Column("ms", "ms here", number(3)),
    Column("here", "over fused dense, here", show_ratio),
    Column("flops", "by FLOPs", show_ratio),
    Column("run", "theirs [run]", show_ratio),
    Column("ms_run", "ms, theirs [run]", as_printed),
    Column("memory", "MiB here", number(3)),
)
MEMORY = (
    "MiB: the most bytes of tensors that a call holds at once, inputs not; what a kernel takes inside itself is not seen, nor "
    "anything of the compiled one."
)


def _operation(efficiency: Efficiency, published: Theirs) -> PaperTable:
    times, usage, flex = (published[name] for name in ("operation", "operation-usage", "operation-blocks"))
    theirs = {
        **times.values,
        **{key: value for key, value in {**usage.values, **flex.values}.items() if key not in times.values},
    }
    rows = []
    for tokens in TOKENS:
        for frames in FRAMES:
            found = [_row(efficiency, theirs, method, (tokens, frames)) for method in NAMES]
            rows += [row for row in found if row is not None]
    deviation = Column("deviation", "largest difference", number(2))
    notes = (
        f"One attention of 12 heads of 64 on noise, T frames in memory, K = {TOPK}. The largest difference is from the first "
        "one of its kind: fused dense attention, or the top-K that scatters (where two scores are nearly equal at rank K, "
        "implementations keep another one of them).",
        *differences(efficiency, times),
        *skipped(efficiency, 1),
        MEMORY,
        here(efficiency, "forward, one object"),
    )
    title = "One attention: top-K against dense, by frames in memory and size"
    return PaperTable(
        "operation", title, (*OPERATION, deviation), tuple(rows), notes, sources(times, usage, flex), names=3
    )


def _by_k(efficiency: Efficiency, published: Theirs) -> PaperTable:
    times = published["operation-by-k"]
    rows = []
    for tokens, frames, topk in (*((*SWEPT_AT, each) for each in K_SWEEP), (144, 8, 8)):
        for method in NAMES:
            row = _row(efficiency, times.values, method, (tokens, frames, topk))
            if row is not None and (method == DENSE or method[0] == "topk-all"):
                rows.append({**row, "k": topk})
    columns = (Column("k", "K"), *OPERATION)
    notes = (
        "One attention of 12 heads of 64 on noise. What K costs is the fetching and weighing of the kept; the scores of all "
        "keys and the search among them stay whatever K is.",
        here(efficiency, "forward, one object"),
    )
    return PaperTable("by-k", "One attention by K", columns, tuple(rows), notes, sources(times), names=4)


def _training(efficiency: Efficiency, published: Theirs) -> PaperTable:
    times = published["operation-training"]
    rows = []
    for where in TRAINED:
        for method in NAMES:
            row = _row(efficiency, times.values, method, where, backward=True)
            if row is not None:
                rows.append({**row, "k": where[2]})
    columns = (Column("k", "K"), *OPERATION)
    notes = (
        "One attention of 12 heads of 64 on noise, with the gradients of queries, keys and values. FLOPs are three times the "
        "forward pass; fused attention computes its scores a second time in the backward pass, which is not counted.",
        MEMORY,
        here(efficiency, "forward and backward, one object"),
    )
    title = "One attention, forward and backward"
    return PaperTable("training", title, columns, tuple(rows), notes, sources(times), names=4)


def _whole(efficiency: Efficiency, published: Theirs) -> PaperTable:
    cached, official, parts = (published[name] for name in ("read-cached-time", "read-official-time", "parts-time"))
    rows = []
    for tokens in TOKENS:
        for frames in FRAMES:
            key = f"{tokens} {frames}"
            base, read = (frame(efficiency, "dense", mode, tokens, frames) for mode in ("full", "read"))
            again = frame(efficiency, "dense", "recompute", tokens, frames)
            if read is None and key not in cached.values:
                continue
            row: dict[str, Any] = {
                "tokens": tokens,
                "frames": frames,
                "published": latency(base),
                "published_run": official.get(key),
                "read": latency(read),
                "read_run": cached.get(key),
                "here": quotient(base, read),
                "flops": over(None if base is None else base.flops, None if read is None else read.flops),
                "run": over(official.get(key), cached.get(key)),
                "fused": quotient(again, read),
                "alone": behind_the_trunk(efficiency, again or base, read, tokens, frames),
                "deviation": None if read is None else read.deviation,
            }
            for label in DESIGNS:
                if label != "dense":
                    row[label] = quotient(frame(efficiency, label, "read", tokens, frames), read)
            rows.append(row)
    columns = (
        Column("tokens", "tokens"),
        Column("frames", "T"),
        Column("published", "as published, ms here", number(3)),
        Column("published_run", "theirs [run]", as_printed),
        Column("read", "cached, ms here", number(3)),
        Column("read_run", "theirs [run]", as_printed),
        Column("here", "published / cached, here", show_ratio),
        Column("flops", "by FLOPs", show_ratio),
        Column("run", "theirs [run]", show_ratio),
        Column("fused", "recomputed, but fused / cached", show_ratio),
        Column("alone", "without the trunk", show_ratio),
        *(Column(label, f"{name} / dense, cached", show_ratio) for label, name in DESIGNS.items() if label != "dense"),
        Column("deviation", "largest difference", number(2)),
    )
    write, trunk = (
        [
            (tokens, latency(call))
            for tokens in TOKENS
            if (call := frame(efficiency, "parts", mode, tokens, 1)) is not None
        ]
        for mode in ("write", "query")
    )
    said = [
        f"{name}: "
        + ", ".join(f"{number(3)(took)} ms at {tokens} tokens" for tokens, took in found if took is not None)
        + "."
        for name, found in (("A write", write), ("The trunk of a query", trunk))
        if any(took is not None for _, took in found)
    ]
    notes = (
        "A whole frame of one object through ConvMAE-Base, trunk included. As published: memory tokens are projected again and "
        "the attention matrix is written out; recomputed, but fused: the same with fused attention, so that what is left is "
        "caching alone. Without the trunk: that one (as published where it was not timed) over the cached read, less the "
        "query's trunk in both. The largest difference is between the cached and the published read.",
        *said,
        *of_frames(efficiency),
        *skipped(efficiency, 11),
        here(efficiency, "one frame of one object"),
    )
    title = "A whole frame: cached keys and values against recomputing them"
    return PaperTable("frames", title, columns, tuple(rows), notes, sources(cached, official, parts), names=2)
