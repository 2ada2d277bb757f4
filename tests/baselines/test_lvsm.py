import math

import pytest
import torch

from baselines.lvsm import PRESETS, LVSMDecoderOnly, LVSMDecoderOnlyConfig
from tests.models.helpers import meta_batch


def paper_model(layers=24):
    with torch.device("meta"):
        return LVSMDecoderOnly(LVSMDecoderOnlyConfig(layers=layers))


def test_published_size():
    assert PRESETS["paper"].layers == 24
    assert sum(parameter.numel() for parameter in paper_model().parameters()) == 170_795_520


@pytest.mark.parametrize(("layers", "million"), [(18, 128.3), (12, 85.8), (6, 43.4)])
def test_published_sizes_of_the_shallower_ones(layers, million):
    count = sum(parameter.numel() for parameter in paper_model(layers).parameters())
    assert count / 1e6 == pytest.approx(million, abs=0.06)


@pytest.mark.parametrize(
    ("input_views", "target_views", "tera"),
    [(2, 1, 1.74), (2, 6, 10.44), (4, 8, 29.4), (8, 8, 75.1), (16, 8, 226), (32, 8, 765)],
)
def test_published_flops(input_views, target_views, tera):
    flops = paper_model().flops(meta_batch(1, input_views, target_views, (256, 256)))
    # The published table counts the tokenisers in some cells and not in others, which is worth up to 0.4 %.
    assert flops / 1e12 == pytest.approx(tera, rel=0.004, abs=0.006)


def test_every_block_starts_scaled_by_its_own_depth():
    torch.manual_seed(0)
    model = LVSMDecoderOnly(LVSMDecoderOnlyConfig(width=256, layers=3))
    for index, block in enumerate(model.transformer_blocks):
        weights = [m.weight for m in block.modules() if isinstance(m, torch.nn.Linear)]
        assert len(weights) == 4
        for weight in weights:
            assert weight.mean().item() == pytest.approx(0, abs=1e-3)
            assert weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * (index + 1)), rel=0.03)
    for layer in (model.image_tokenizer[1], model.target_pose_tokenizer[1], model.image_token_decoder[1]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert all((value == 1).all() for key, value in model.state_dict().items() if "norm" in key)
