"""What CAT-Seg's aggregation costs at the published widths: 24 x 24 places, 128 channels, 4 heads, windows of 12 x 12.

Run by ``make bench-micro``; ``ARGS="-k catseg"`` runs these alone, which takes about 3 minutes. Two bars: class attention and
spatial blocks are no slower than plain einsum code of the same mathematics, alone and in training; and 20 classes without
padding cost about a third of 20 that are filled up to 256.
"""

from dataclasses import replace

import pytest
import torch

from models.catseg_aggregator import CATSegAggregator, CATSegAggregatorConfig
from tests.micro.paired import interleaved_ratio
from tests.micro.test_view_synthesis import note, training_step
from tests.models.catseg_oracle import AggregatorOracle
from tests.models.helpers import randomise

CONFIG = CATSegAggregatorConfig(class_padding=None, layers=1, test_pooling_size=(1, 1))
CLASSES = 16
PARTS = [
    pytest.param("swin", "linear", CLASSES, id="spatial"),
    pytest.param("class", "linear", CLASSES, id="linear"),
    pytest.param("class", "full", CLASSES, id="full"),
    pytest.param("class", "linear", 150, id="linear 150"),
    pytest.param("class", "full", 150, id="full 150"),
]
"""Part, attention, classes."""


def part_and_oracle(part, attention, classes):
    torch.manual_seed(0)
    model = randomise(CATSegAggregator(replace(CONFIG, attention=attention))).eval()
    oracle = AggregatorOracle(dict(model.named_parameters()) | dict(model.named_buffers()), model.config)
    layer, x = model.layers[0], torch.randn(1, classes, 24, 24, 128)
    if part == "swin":
        guidance, block = torch.randn(1, 24, 24, 128), layer.swin_block
        return (
            block,
            lambda: block(x, block.guide(guidance)),
            lambda: oracle.windows("layers.0.swin_block", x, guidance),
        )
    text, block = torch.randn(1, classes, 128), layer.attention
    return block, lambda: block(x, text, (1, 1)), lambda: oracle.classes("layers.0.attention", x, text, (1, 1))


@pytest.mark.benchmark(group="catseg")
@pytest.mark.parametrize(("part", "attention", "classes"), PARTS)
@torch.inference_mode()
def test_catseg_parts_against_einsum(benchmark, record, part, attention, classes):
    _, ours, plain = part_and_oracle(part, attention, classes)
    torch.testing.assert_close(ours(), plain(), atol=1e-3, rtol=1e-4)
    ratio = interleaved_ratio(ours, plain, rounds=9 if classes == CLASSES else 3, warmups=1)
    note(benchmark, record, f"catseg {part} of {classes} classes, {attention}: ours / einsum", ratio)
    benchmark.pedantic(ours, rounds=1, warmup_rounds=0)
    assert ratio.low <= 1, "significantly slower than plain code"


@pytest.mark.benchmark(group="catseg")
@pytest.mark.parametrize(("part", "attention", "classes"), PARTS[:3])
def test_catseg_parts_in_training_against_einsum(benchmark, record, part, attention, classes):
    block, ours, plain = part_and_oracle(part, attention, classes)
    steps = training_step(block, ours), training_step(block, plain)
    ratio = interleaved_ratio(*steps, rounds=7, warmups=1)
    note(
        benchmark,
        record,
        f"catseg {part} of {classes} classes, {attention}, forward and backward: ours / einsum",
        ratio,
    )
    benchmark.pedantic(steps[0], rounds=1, warmup_rounds=0)
    assert ratio.low <= 1, "significantly slower than plain code"


@pytest.mark.benchmark(group="catseg")
@torch.inference_mode()
def test_catseg_padding_against_none(benchmark, record):
    """20 classes at the published size of 2024: 3.0 times the FLOPs with 256."""
    config, generator = CATSegAggregatorConfig(test_pooling_size=(1, 1)), torch.Generator().manual_seed(0)
    shapes = [(768, 24, 24), (20, 1, 768), (768, 24, 24), (256, 48, 48), (128, 96, 96)]
    inputs = [torch.randn(1, *shape, generator=generator) for shape in shapes]
    models = [
        CATSegAggregator(replace(config, **options)).eval()
        for options in ({"class_padding": None}, {}, {"fold_padding": True})
    ]
    none, padded, folded = ((lambda model=model: model(*inputs)) for model in models)
    ratio = interleaved_ratio(none, padded, rounds=3, warmups=1)
    note(benchmark, record, "catseg of 20 classes, no padding / padding to 256", ratio)
    note(
        benchmark,
        record,
        "catseg of 20 classes, no padding / folded padding",
        interleaved_ratio(none, folded, rounds=3),
    )
    benchmark.pedantic(none, rounds=1, warmup_rounds=0)
    assert 0.25 <= ratio.median <= 0.45, "the padding costs something else than 3 times"
