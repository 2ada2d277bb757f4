import math

import pytest
import torch

from models.efficient_lvsm import PRESETS, EfficientLVSM, EfficientLVSMConfig
from tests.models.helpers import meta_batch


def paper_model():
    with torch.device("meta"):
        return EfficientLVSM(PRESETS["paper"])


def test_published_size():
    assert sum(parameter.numel() for parameter in paper_model().parameters()) == 199_070_208


@pytest.mark.parametrize(
    ("input_views", "target_views", "tera"),
    [(2, 1, 0.80), (2, 6, 2.40), (4, 8, 4.15), (8, 8, 6.34), (16, 8, 10.8), (32, 8, 19.6)],
)
def test_published_flops(input_views, target_views, tera):
    flops = paper_model().flops(meta_batch(1, input_views, target_views, (256, 256)))
    # The published table counts the tokenisers in some cells and not in others, which is worth up to 0.4 %.
    assert flops / 1e12 == pytest.approx(tera, rel=0.004, abs=0.006)


def test_norms_have_no_weights():
    assert not [
        key for key in paper_model().state_dict() if "norm" in key and "q_norm" not in key and "k_norm" not in key
    ]


def test_target_stream_starts_depth_scaled_and_input_stream_at_torchs_default():
    torch.manual_seed(0)
    model = EfficientLVSM(EfficientLVSMConfig(width=256, layers=3))
    for index, block in enumerate(model.self_cross_blocks):
        weights = [m.weight for m in block.modules() if isinstance(m, torch.nn.Linear)]
        assert len(weights) == 7
        for weight in weights:
            assert weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * (index + 1)), rel=0.03)
            assert weight.abs().max() > 3.5 * weight.std()  # normal, not uniform
    for block in model.input_self_attn_blocks:
        for weight in (m.weight for m in block.modules() if isinstance(m, torch.nn.Linear)):
            bound = 1 / math.sqrt(weight.shape[1])
            assert weight.abs().max().item() <= bound
            assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    for layer in (model.rgbp_tokenizer[1], model.target_pose_tokenizer[1], model.image_token_decoder[1]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)
