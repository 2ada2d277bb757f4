import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.layers.conv_attention import KeysValues, Maps
from models.layers.mixed_vit import MixedSelfAttention, MixedViTBlock, mixed_vit_block_flops
from models.layers.vit import Block
from tests.models.helpers import randomise

LAYOUT = (Maps(2, 2), Maps(1, 3))
TEMPLATES, TOKENS = 8, 17


def block(asymmetric, width=12, heads=3, **options):
    return randomise(MixedViTBlock(width, heads, asymmetric=asymmetric, **options)).eval()


def test_the_scale_is_that_of_a_head():
    """Four channels in two heads; three tokens, each a picture of one cell, and projections that are the identity."""
    module = MixedSelfAttention(4, 2, asymmetric=True)
    with torch.no_grad():
        module.qkv.weight.copy_(torch.eye(4).repeat(3, 1))
        module.proj.weight.copy_(torch.eye(4))
        module.qkv.bias.zero_()
        module.proj.bias.zero_()
    x = torch.tensor([[[1.0, 0.0, 2.0, 1.0], [0.0, 1.0, -1.0, 0.5], [0.5, 2.0, 1.0, 1.0]]])
    out, _ = module(x, (Maps(2, 1), Maps(1, 1)))
    for token, readable in ((0, 2), (1, 2), (2, 3)):
        for channels in (slice(0, 2), slice(2, 4)):
            query, read = x[0, token, channels], x[0, :readable, channels]
            weights = ((read @ query) / 2**0.5).softmax(0)
            torch.testing.assert_close(out[0, token, channels], weights @ read)


def test_symmetric_mixing_is_a_plain_block():
    mixed, plain = block(asymmetric=False), Block(12, 3)
    plain.load_state_dict(mixed.state_dict())
    x = torch.randn(2, TOKENS, 12)
    torch.testing.assert_close(mixed(x, LAYOUT)[0], plain(x))


def test_asymmetric_mixing_is_a_plain_block_with_a_mask():
    mixed, plain = block(asymmetric=True), Block(12, 3)
    plain.load_state_dict(mixed.state_dict())
    x = torch.randn(2, TOKENS, 12)
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool)
    mask[:TEMPLATES, TEMPLATES:] = False
    torch.testing.assert_close(mixed(x, LAYOUT)[0], plain(x, mask))


def test_a_search_picture_alone_reads_kept_templates():
    mixed, x = block(asymmetric=True), torch.randn(2, TOKENS, 12)
    together, own = mixed(x, LAYOUT)
    templates, kept = mixed(x[:, :TEMPLATES], LAYOUT[:1])
    alone, _ = mixed(x[:, TEMPLATES:], LAYOUT[1:], kept)
    torch.testing.assert_close(torch.cat([templates, alone], dim=1), together)
    assert kept.keys.shape == (2, TEMPLATES, 3, 4)
    torch.testing.assert_close(kept, KeysValues(*(part[:, :TEMPLATES] for part in own)))


def test_dropped_branches_leave_the_tokens_alone():
    module, x = block(asymmetric=True, drop_path=1 - 1e-9).train(), torch.randn(2, TOKENS, 12)
    assert torch.equal(module(x, LAYOUT)[0], x)


@pytest.mark.parametrize("asymmetric", [True, False])
@pytest.mark.parametrize("layout", [LAYOUT, LAYOUT[:1]])
def test_closed_form_equals_the_counter(asymmetric, layout):
    with torch.device("meta"):
        module = block(asymmetric).to("meta")
        x = torch.empty(2, sum(maps.tokens for maps in layout), 12)
    with FlopCounterMode(display=False) as counter:
        module(x, layout)
    assert counter.get_total_flops() == 2 * mixed_vit_block_flops(12, layout, asymmetric=asymmetric)
