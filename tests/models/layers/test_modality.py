"""Encoder and decoder of one modality, on their own, as benchmarks build them."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.layers.modality import Encoded, ModalityDecoder, ModalityEncoder

FORMS = {
    "cross": {},
    "cross self-attention": {"self_attention": True},
    "cross maps": {"maps": 3},
    "self": {"kind": "self"},
}


@pytest.fixture(params=FORMS)
def decoder(request):
    torch.manual_seed(0)
    return ModalityDecoder(8, 16, 2, 2, 5, **FORMS[request.param])


def encoded(decoder, samples=2, tokens=4):
    torch.manual_seed(1)
    maps = [torch.randn(samples, tokens, 16) for _ in range(max(1, decoder.maps))]
    return Encoded(maps, None, torch.randn(samples, tokens, 8))


def test_a_decoder_is_its_blocks_in_their_order(decoder):
    source, positions = encoded(decoder), torch.randn(2, 7, 8)
    x = decoder.mask_token + positions
    if decoder.embed is None:
        mixed = decoder.feature_maps(source.maps) if decoder.maps else source.maps * 2
        for block, one in zip(decoder.blocks, mixed, strict=True):
            x = block(x, one)
    else:
        x = torch.cat([decoder.embed(source.maps[0]) + source.positions, x], dim=1)
        for block in decoder.blocks:
            x = block(x)
        x = x[:, 4:]
    torch.testing.assert_close(decoder(positions, source), decoder.head(decoder.norm(x)))


def test_a_decoder_gives_the_numbers_of_each_token(decoder):
    source, positions = encoded(decoder), torch.randn(2, 7, 8)
    out = decoder(positions, source)
    assert out.shape == (2, 7, 5)
    swapped = decoder(positions.flip(1), source)
    torch.testing.assert_close(swapped.flip(1), out, atol=1e-6, rtol=1e-5)


def test_queries_read_one_another_only_where_they_are_meant_to(decoder):
    source, positions = encoded(decoder), torch.randn(2, 7, 8)
    moved = positions.clone()
    moved[:, 0] = torch.randn(2, 8)
    gap = (decoder(moved, source) - decoder(positions, source)).abs()[:, 1:].max()
    assert (gap > 1e-6) == (decoder.embed is not None or decoder.self_attention)


def test_every_encoded_token_is_read(decoder):
    """A sequence, not its mean: exchanging what two tokens hold, their mean as it was, moves the prediction."""
    source, positions = encoded(decoder), torch.randn(2, 7, 8)
    before = decoder(positions, source)
    for token in range(3):
        maps = [one.clone() for one in source.maps]
        for one in maps:
            one[:, token, ::2] += 1
            one[:, token + 1, ::2] -= 1
        assert (decoder(positions, source._replace(maps=maps)) - before).abs().max() > 1e-5


def test_work_is_counted_in_closed_form(decoder):
    source, positions = encoded(decoder), torch.randn(2, 7, 8)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        decoder(positions, source)
    assert counter.get_total_flops() == 2 * decoder.flops(7, 4)


def test_only_one_side_may_have_padding(decoder):
    source, positions = encoded(decoder), torch.randn(2, 7, 8)
    shorter = Encoded([one[:, :3] for one in source.maps], None, source.positions[:, :3])
    hidden = source._replace(mask=torch.tensor([[True, True, True, False]]).expand(2, -1))
    torch.testing.assert_close(decoder(positions, hidden), decoder(positions, shorter), atol=1e-6, rtol=1e-5)
    mask = torch.tensor([[True] * 6 + [False]]).expand(2, -1)
    out = decoder(positions, source, mask)
    torch.testing.assert_close(out[:, :6], decoder(positions[:, :6], source), atol=1e-6, rtol=1e-5)
    assert not out[:, 6].any()


def test_the_maps_of_an_encoder_are_its_layers():
    torch.manual_seed(0)
    encoder = ModalityEncoder(16, 4, 2, map_layers=[0, 2], use_input=True)
    x = torch.randn(2, 5, 16)
    first, second, third = encoder(x)
    assert torch.equal(first, x)
    torch.testing.assert_close(second, encoder.blocks[0](x))
    torch.testing.assert_close(third, encoder.blocks[2](encoder.blocks[1](second)))
    plain = ModalityEncoder(16, 1, 2)
    torch.testing.assert_close(plain(x)[0], plain.norm(plain.blocks[0](x)))
