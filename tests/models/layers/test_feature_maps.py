import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from models.layers.feature_maps import FeatureMaps, MapWeights, feature_map_flops
from tests.models.helpers import randomise


def test_every_block_reads_its_own_normed_mixture():
    maps = [torch.randn(2, 5, 8) for _ in range(3)]
    module = randomise(FeatureMaps(3, 4, 8))
    read = module(maps)
    mixtures = F.linear(torch.stack(maps, dim=-1), module.linear.weight)  # as published: the maps on the last axis
    assert len(read) == 4
    for block, norm in enumerate(module.norms):
        torch.testing.assert_close(read[block], norm(mixtures[..., block]))
        centred = (read[block] - norm.bias) / norm.weight
        torch.testing.assert_close(centred.mean(-1), torch.zeros(2, 5), atol=1e-5, rtol=0)
        torch.testing.assert_close(centred.var(-1, correction=0), torch.ones(2, 5), atol=1e-3, rtol=0)


def test_weights_start_within_the_bound_of_xavier():
    torch.manual_seed(0)
    weight = MapWeights(13, 12).linear.weight  # ViT-B with use_input: bound .490
    assert weight.shape == (12, 13)
    assert 0.47 < weight.abs().max() < (6 / 25) ** 0.5
    assert abs(weight.std().item() - 0.283) < 0.02


def test_closed_form_equals_the_counter():
    with torch.device("meta"):
        module, maps = MapWeights(3, 4), [torch.empty(2, 5, 8)] * 3
    with FlopCounterMode(display=False) as counter:
        module.mix(maps)
    assert counter.get_total_flops() == 2 * feature_map_flops(3, 4, 5, 8)
