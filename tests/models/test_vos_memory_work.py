"""What a clip and a frame cost: closed forms against the counters, and the sizes of the presets."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.engine.flops import triangulate
from models.vos_memory import PRESETS, VOSMemory, VOSMemoryConfig
from tests.models.small_vos import FIELDS, POLICIES, SMALL, TOPK, build, clips


def test_closed_form_equals_the_counters():
    report = triangulate(lambda: VOSMemory(VOSMemoryConfig(**SMALL)), clips(frames=3), FIELDS, require_closed_form=True)
    assert report.counters["closed_form"] == report.counters["torch"] == report.counters["fvcore"]


READS = {
    "dense": {},
    "shared-subset": {"memory_read": "shared-subset", "subset_ratio": 0.4},
    **{f"topk {name}": {**TOPK, "implementation": name} for name in ("scatter", "mask", "gather", "bag")},
}


@pytest.mark.slow
@pytest.mark.parametrize("frames", [2, 4])
@pytest.mark.parametrize("read", ["dense", "shared-subset", "topk mask"])
def test_closed_form_counts_the_usage_that_eviction_needs(read, frames):
    """Two frames are kept: of four, one is evicted."""
    small = {**SMALL, "layers": (1, 1, 1), **POLICIES["usage"], "max_memory_frames": 2}
    config = VOSMemoryConfig(**{**small, **READS[read]})
    report = triangulate(lambda: VOSMemory(config), clips(frames=frames), FIELDS, require_closed_form=True)
    assert report.counters["closed_form"] == report.counters["torch"] == report.counters["fvcore"]


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {**POLICIES["every second"], "strides": (4, 2, 1)},
        TOPK,
        {"train_memory": "random"},
        {"eviction": "usage"},  # nothing is ever evicted
        *({**POLICIES["usage"], **read} for read in READS.values()),
    ],
)
def test_closed_form_counts_either_mode(options, training):
    model, batch = build(**options).train(training), clips(((0, 0), (0, -1)), frames=6, size=(13, 24))
    with FlopCounterMode(display=False) as counter:
        model(**batch)
    assert model.flops(batch) == counter.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize("read", [*READS, "flex"])
def test_closed_form_of_a_step_counts_the_usage_that_is_asked_for(read):
    options = READS.get(read, {"memory_read": "flex", "image_size": 96})
    with torch.device("meta"):  # where flex compiles nothing
        model = VOSMemory(VOSMemoryConfig(**{**SMALL, "memory_every": 1, **options})).eval()
        stream = model.stream(usage=True)
        stream.step(torch.empty(1, 3, 96, 96), torch.empty(1, 2, 96, 96))
    for frames in (1, 2, 3):
        with FlopCounterMode(display=False) as counter:
            stream.step(torch.empty(1, 3, 96, 96, device="meta"))
        told = [model.flops_frame(96, 96, frames, 2, usage=usage) for usage in (True, False)]
        assert counter.get_total_flops() == told[0]
        assert (told[0] > told[1]) == (read in ("dense", "shared-subset", "topk mask", "flex"))


def test_flops_of_a_frame_add_up_to_those_of_a_clip():
    model = build(memory_every=1)
    batch = clips(((0, 0),), frames=4, size=(16, 24))
    assert sum(model.flops_frame(16, 24, frames, 2) for frames in (1, 2, 3)) == model.flops(batch)
    assert model.flops_frame(11, 20, 2, 2) == model.flops_frame(16, 24, 2, 2)


def test_presets():
    assert list(PRESETS) == ["tiny", "small", "paper"]
    with torch.device("meta"):
        sizes = {name: sum(p.numel() for p in VOSMemory(config).parameters()) / 1e6 for name, config in PRESETS.items()}
    assert sizes["tiny"] < 1.5
    assert round(sizes["paper"], 1) == 93.5
    assert PRESETS["paper"].image_size == 384
