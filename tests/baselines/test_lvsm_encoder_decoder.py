import math

import pytest
import torch

from baselines.lvsm_encoder_decoder import PRESETS, LVSMEncoderDecoder, LVSMEncoderDecoderConfig
from tests.models.helpers import build, meta_batch, random_batch


def paper_model():
    with torch.device("meta"):
        return LVSMEncoderDecoder(PRESETS["paper"])


def test_published_size():
    model = paper_model()
    assert model.n_light_field_latent.shape == (3072, 768)
    assert sum(parameter.numel() for parameter in model.parameters()) == 173_154_816


@pytest.mark.parametrize(
    ("input_views", "target_views", "tera"),
    [(2, 1, 3.15), (2, 6, 9.73), (4, 8, 13.6), (8, 8, 17.1), (16, 8, 27.8), (32, 8, 64.0)],
)
def test_published_flops(input_views, target_views, tera):
    flops = paper_model().flops(meta_batch(1, input_views, target_views, (256, 256)))
    assert flops / 1e12 == pytest.approx(tera, rel=0.004, abs=0.006)


def test_blocks_start_scaled_by_their_depth_in_their_own_stack():
    torch.manual_seed(0)
    model = LVSMEncoderDecoder(LVSMEncoderDecoderConfig(width=256, encoder_layers=2, decoder_layers=3, latents=512))
    for stack in (model.transformer_encoder, model.transformer_decoder):
        for index, block in enumerate(stack):
            weights = [m.weight for m in block.modules() if isinstance(m, torch.nn.Linear)]
            assert len(weights) == 4
            for weight in weights:
                assert weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * (index + 1)), rel=0.03)
    latents = model.n_light_field_latent
    assert latents.std().item() == pytest.approx(0.02, rel=0.03)
    assert latents.mean().item() == pytest.approx(0, abs=1e-3)
    assert all((value == 1).all() for key, value in model.state_dict().items() if "norm" in key)


def test_a_scene_is_as_large_for_one_view_as_for_many():
    model = build("lvsm-encoder-decoder")
    for views in (1, 5):
        batch = random_batch(2, views, 1)
        scene = model.encode(batch["input_images"], batch["input_c2w"], batch["input_intrinsics"])
        assert scene.latents.shape == (2, 24, 64)
        assert scene.latents.untyped_storage().nbytes() == 2 * 24 * 64 * 4
