"""What the decoders of masked pretraining cost at the hydrology notes' shapes: forward and backward, one CPU thread.

Run by ``make bench-micro``; ``ARGS="-k masked"`` runs these alone, which takes about 8 minutes. Two bars: a cross-attention
decoder layer at full size is at least 4 times as fast as a self-attention one, and samples that vary by 20 % in length cost a
step at most a quarter more. All ratios, with intervals, come from ``make measure-efficiency TASK=hydrology``.
"""

import pytest
import torch

from models.hydrology_mae import HydrologyMAE, HydrologyMAEConfig
from models.layers.modality import Encoded, ModalityDecoder
from tests.micro.paired import interleaved_ratio
from tests.micro.test_view_synthesis import note, training_step

SAMPLES, PATCHES, HIDDEN = 8, 94, 70
WIDTH, ENCODER_WIDTH, HEADS, PIXELS = 128, 256, 8, 100


def layer_step(kind, days):
    """Forward and backward of a decoder of one layer on a batch of the notes' shape."""
    torch.manual_seed(0)
    decoder = ModalityDecoder(WIDTH, ENCODER_WIDTH, 1, HEADS, PIXELS, kind=kind)
    encoded = 1 + days * (PATCHES - HIDDEN)
    queries = torch.randn(SAMPLES, days * HIDDEN, WIDTH)
    source, positions = torch.randn(SAMPLES, encoded, ENCODER_WIDTH), torch.randn(SAMPLES, encoded, WIDTH)
    return training_step(
        decoder,
        lambda: decoder(
            queries.detach().requires_grad_(), Encoded([source.detach().requires_grad_()], None, positions)
        ),
    )


@pytest.mark.benchmark(group="masked decoder layer")
@pytest.mark.parametrize(
    ("days", "rounds", "warmups", "bar"), [(12, 15, 2, 2.0), (90, 3, 1, 4.0)], ids=["12 days", "90 days"]
)
def test_masked_decoder_layer_cross_against_self(benchmark, record, days, rounds, warmups, bar):
    own, cross = layer_step("self", days), layer_step("cross", days)
    ratio = interleaved_ratio(own, cross, rounds=rounds, warmups=warmups)
    note(
        benchmark,
        record,
        f"masked decoder layer, {days} days, batch {SAMPLES}, self-attention / cross-attention",
        ratio,
    )
    benchmark.pedantic(cross, rounds=1, warmup_rounds=0)
    assert ratio.high >= bar, "cross-attention saves significantly less than it should"


def ragged_batch(shares):
    """A batch whose samples have ``shares`` of 12 days' visible and masked tokens, padded where they differ."""
    generator = torch.Generator().manual_seed(0)
    days = 15  # room for the longest sample
    counts = [(round(share * 12 * (PATCHES - HIDDEN)), round(share * 12 * HIDDEN)) for share in shares]
    visible, masked = (max(sizes) for sizes in zip(*counts, strict=True))
    batch = {
        "image_values": torch.randn(len(shares), 1, visible, PIXELS, generator=generator),
        "image_visible": torch.full((len(shares), 1, visible), -1),
        "image_predicted": torch.full((len(shares), 1, masked), -1),
        "patch_positions": torch.randint(30, (len(shares), PATCHES, 2), generator=generator).float(),
        "day_of_year": torch.arange(float(days)).expand(len(shares), -1),
    }
    for sample, (seen, hidden) in enumerate(counts):
        tokens = torch.randperm(days * PATCHES, generator=generator)
        batch["image_visible"][sample, 0, :seen] = tokens[:seen].sort().values
        batch["image_predicted"][sample, 0, :hidden] = tokens[seen : seen + hidden]
    if len(set(counts)) > 1:
        batch |= {f"image_{part}_mask": batch[f"image_{part}"] >= 0 for part in ("visible", "predicted")}
    return batch, sum(seen + hidden for seen, hidden in counts)


@pytest.mark.benchmark(group="masked step of unequal samples")
@pytest.mark.parametrize("decoder", ["cross", "self"])
def test_masked_step_of_unequal_samples_against_equal_ones(benchmark, record, decoder):
    torch.manual_seed(0)
    model = HydrologyMAE(
        HydrologyMAEConfig(image_modalities=1, series_modalities=0, static_attributes=0, decoder=decoder)
    )
    (equal, total), (unequal, same) = ragged_batch([1.0] * 8), ragged_batch(torch.linspace(0.8, 1.2, 8).tolist())
    assert abs(same / total - 1) < 1e-3
    steps = [training_step(model, lambda batch=batch: model(**batch)["image_prediction"]) for batch in (unequal, equal)]
    ratio = interleaved_ratio(*steps, rounds=7)
    note(benchmark, record, f"masked step, 12 days, batch {SAMPLES}, {decoder}: lengths +-20 % / equal", ratio)
    benchmark.pedantic(steps[0], rounds=1, warmup_rounds=0)
    assert ratio.low <= 1.25, "unequal samples cost significantly more than they should"
