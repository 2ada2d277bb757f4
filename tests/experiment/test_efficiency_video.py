"""Counting and timing of memory reading and of MixFormer: numbers that are known, caches that are exact, calls that run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.experiment.efficiency import tracking, vos
from bench.experiment.efficiency.count import count_here
from bench.experiment.efficiency.spec import Row, TaskEfficiency, TimedCall, task_efficiency

CPU = torch.device("cpu")
TASKS = ("vos", "tracking")
TOKENS = 4
"""Of the pictures of 32 px that are timed here."""


def row_of(task: TaskEfficiency, label: str, mode: str, **sizes: int) -> Row:
    return next(
        row for row in task.rows if (row.label, row.mode) == (label, mode) and sizes.items() <= row.sizes.items()
    )


def gflop(task: TaskEfficiency, label: str, mode: str, **sizes: int) -> float:
    """Closed form of a row, which what it executes on the meta device must equal."""
    counted = task.counted(row_of(task, label, mode, **sizes))
    with torch.device("meta"):
        module: Any = counted.build().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(**{name: counted.batch[name] for name in counted.fields})
    assert counter.get_total_flops() == module.flops(counted.batch)
    return float(counter.get_total_flops() / 1e9)


@pytest.mark.parametrize("task", TASKS)
def test_rows_and_groups_are_unique_and_rounds_enough(task: str) -> None:
    spec = task_efficiency(task)
    rows = [(row.label, row.mode, *sorted(row.sizes.items())) for row in spec.rows]
    assert len(set(rows)) == len(rows)
    for preset in ("tiny", "small", "paper"):
        groups = [tuple(sorted(group.items())) for group in spec.groups(preset)]
        assert len(set(groups)) == len(groups) > 0
    assert spec.rounds >= 6


# ------------------------------------------------------------------------------------------------------ memory reading


@pytest.mark.parametrize(
    ("tokens", "frames", "cached", "published"),
    [
        (144, 1, 34.4, 54.9),
        (576, 2, 165.5, 329.9),
        (576, 8, 232.7, 890.5),
    ],
)
def test_reads_of_the_published_size(tokens: int, frames: int, cached: float, published: float) -> None:
    task = vos.VideoObjectSegmentation()
    assert gflop(task, "dense", "read", tokens=tokens, frames=frames) == pytest.approx(cached, abs=0.06)
    assert gflop(task, "dense", "recompute", tokens=tokens, frames=frames) == pytest.approx(published, abs=0.1)


def test_trunk_and_write_of_the_published_size() -> None:
    task = vos.VideoObjectSegmentation()
    trunk, write = (gflop(task, "dense", mode, tokens=576) for mode in ("query", "write"))
    assert trunk == pytest.approx(42, abs=0.5)
    # A block less than a read has, and no query: keys and values alone (15 GFLOP) are the smallest part of a write.
    assert write == pytest.approx(135.4, abs=0.1)


def test_top_k_saves_no_flop_and_a_subset_does() -> None:
    task = vos.VideoObjectSegmentation()
    dense, everything, each, subset = (
        gflop(task, label, "read", tokens=1620, frames=8)
        for label in ("dense", "topk-all", "topk-each", "shared-subset")
    )
    assert dense == everything == each
    assert subset < 0.65 * dense


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> vos.VideoObjectSegmentation:
    """The task on a backbone and on pictures that are timed in an instant."""
    options = {"image_size": 32, "widths": (8, 12, 16), "layers": (1, 1, 2), "heads": 2}
    monkeypatch.setitem(vos.SIZES, "base", options)
    monkeypatch.setattr(vos, "PIXELS", {TOKENS: (32, 32)})
    monkeypatch.setattr(vos, "HEADS", 2)
    monkeypatch.setattr(vos, "WIDTH", 16)
    monkeypatch.setattr(vos, "SWEPT_AT", (0, 0))  # nothing is compiled
    return vos.VideoObjectSegmentation()


def calls_of(task: vos.VideoObjectSegmentation, frames: int, **sizes: int) -> dict[str, TimedCall]:
    torch.manual_seed(0)
    models = {label: model.eval() for label, model in task.models("tiny").items()}
    calls = task.calls(models, {**vos._group(TOKENS, frames), **sizes}, "tiny", CPU, 0)
    return {f"{call.label}/{call.mode}": call for call in calls}


def flops_run(run: Any) -> tuple[int, torch.Tensor]:
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = run()
    return counter.get_total_flops(), output


@torch.inference_mode()
def test_whole_frames_cached_recomputed_and_published_are_the_same(small: vos.VideoObjectSegmentation) -> None:
    calls = calls_of(small, vos.WHOLE_AT, blocks=vos.BLOCKS)
    started = {name: call.start() for name, call in calls.items()}
    outputs = {}
    for name, call in calls.items():
        flops, outputs[name] = flops_run(started[name].run)
        assert flops == call.flops, name
    for name in ("frame dense/read", "frame dense/recompute"):
        torch.testing.assert_close(outputs[name], outputs["frame dense/full"], atol=1e-5, rtol=1e-5)
    # K is above the number of keys, so that every one is kept
    torch.testing.assert_close(outputs["frame topk-all/read"], outputs["frame dense/full"], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(outputs["frame shared-subset/read"], outputs["frame dense/full"], atol=1e-5)
    # keys and values of two blocks, or one set of tokens of each
    assert (
        started["frame dense/read"].held_bytes
        == 2 * started["frame dense/full"].held_bytes
        == 2 * 2 * 4 * TOKENS * 16 * 4
    )
    assert "frame parts/write" not in calls


def test_designs_share_their_weights(small: vos.VideoObjectSegmentation) -> None:
    first, *others = (dict(model.named_parameters()) for model in small.models("tiny").values())
    assert len(others) == 3
    assert all(first[name].data_ptr() == weight.data_ptr() for other in others for name, weight in other.items())


@torch.inference_mode()
def test_a_write_is_timed_once_a_size(small: vos.VideoObjectSegmentation) -> None:
    calls = calls_of(small, 1, blocks=vos.BLOCKS)
    flops, written = flops_run(calls["frame parts/write"].start().run)
    assert flops == calls["frame parts/write"].flops
    assert written.shape == (2 * 2, 1, 2, TOKENS, 8)
    assert set(calls) == {"frame dense/full", "frame dense/read", "frame parts/query", "frame parts/write"}


@torch.inference_mode()
def test_operations_are_the_same_attention(small: vos.VideoObjectSegmentation) -> None:
    calls = calls_of(small, 3, topk=vos.TOPK)
    assert set(calls) == {f"{label}/{mode}" for label, mode in vos.OPERATIONS if label != "flex"}
    outputs = {}
    for name, call in calls.items():
        flops, outputs[name] = flops_run(call.start().run)
        if name not in (
            "dense/usage",
            "parts/selection",
        ):  # columns for the usage and a search are no FLOPs of attention
            assert flops == call.flops, name
    for name in ("dense/usage", "dense/eager", "topk-all/full", "topk-all/mask", "topk-all/gather", "topk-all/bag"):
        torch.testing.assert_close(outputs[name], outputs["dense/full"], atol=1e-5, rtol=1e-5)
    assert outputs["parts/scores"].shape == (1, 2, TOKENS, 4 * TOKENS)
    assert outputs["parts/selection"].shape == (1, 2, TOKENS, 3 * TOKENS)


@torch.inference_mode()
def test_training_operations_run_backward_though_nothing_else_does(small: vos.VideoObjectSegmentation) -> None:
    calls = calls_of(small, 2, topk=2, backward=1)
    assert set(calls) == {f"{label}/{mode}" for label, mode in vos.IN_TRAINING}
    for name in ("dense/full", "dense/eager", "topk-all/full"):
        flops, out = flops_run(calls[name].start().run)
        assert flops == calls[name].flops, name
        assert not out.requires_grad
    assert calls["dense/eager"].flops == 3 * 2 * 2 * TOKENS * 3 * TOKENS * 16


def test_what_cannot_be_compiled_is_left_out_and_said_why() -> None:
    def refuse(*tensors: torch.Tensor) -> torch.Tensor:
        raise ValueError("needs a compiler\nand more")

    with pytest.raises(vos.TooSlow, match=r"^cannot run here: needs a compiler$"):
        vos._compiled(refuse, ())()


# -------------------------------------------------------------------------------------------------------------- tracking


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label", "full", "templates", "published_track"),
    [
        ("cvt-21", 46.4, 9.0, 37.8),
        ("cvt-w24", 256.6, 55.3, 203.8),
        ("vit-b", 92.4, 22.5, 69.9),
        ("tiny", 0.065, None, None),
    ],
)
def test_mixformer_of_the_published_sizes(
    label: str, full: float, templates: float | None, published_track: float | None
) -> None:
    task = tracking.Tracking()
    whole, kept, track = (gflop(task, label, mode) for mode in ("full", "templates", "track"))
    assert whole == pytest.approx(full, abs=0.1 if full > 1 else 0.002)
    if templates is not None and published_track is not None:
        assert kept == pytest.approx(templates, rel=0.01)
        # The published code on CvT projects the templates' keys and values again in every frame, the one on ViT does not.
        again = label.startswith("cvt")
        assert (0.98 if again else 0.999) * published_track < track < (1.0 if again else 1.001) * published_track
    assert track + kept == pytest.approx(whole, rel=1e-6)


def test_symmetric_attention_keeps_next_to_nothing() -> None:
    task = tracking.Tracking()
    whole, kept, track = (gflop(task, "cvt-21-symmetric", mode) for mode in ("full", "templates", "track"))
    assert kept < 0.01 * whole < 0.01 * 1.05 * gflop(task, "cvt-21", "full")
    assert track == pytest.approx(whole - kept)


@torch.inference_mode()
def test_a_frame_from_kept_templates_is_the_frame_of_a_full_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "TIMED", ("tiny", "tiny-symmetric"))
    task = tracking.Tracking()
    calls = {
        f"{call.label}/{call.mode}": call for call in task.calls(task.models("tiny"), tracking.SMALL, "tiny", CPU, 0)
    }
    assert set(calls) == {
        f"tiny{suffix}{part}" for suffix in ("", "-symmetric") for part in ("/full", " templates/templates", "/track")
    }
    for label in ("tiny", "tiny-symmetric"):
        outputs = {}
        for mode in ("full", "track"):
            started = calls[f"{label}/{mode}"].start()
            flops, outputs[mode] = flops_run(started.run)
            assert flops == calls[f"{label}/{mode}"].flops
            assert (started.held_bytes > 0) == (mode == "track")
        torch.testing.assert_close(outputs["track"], outputs["full"], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "templates", "track"])
def test_a_row_is_counted_three_ways(mode: str) -> None:
    row = next(row for row in tracking.Tracking.rows if (row.label, row.mode) == ("tiny", mode))
    counters = count_here("tracking", row)["counters"]
    assert counters["torch"] == counters["fvcore"] == counters["closed_form"] > 0
