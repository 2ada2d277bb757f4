import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.layers.class_attention import ClassBlock, full_attention, linear_attention
from tests.models.helpers import randomise

ATTENTIONS = pytest.mark.parametrize("attend", [linear_attention, full_attention])


def test_linear_attention_by_hand():
    """One head of one channel; phi is x + 1 above zero and exp(x) below."""
    queries = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    keys, values = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1), torch.tensor([4.0, -2.0]).view(1, 2, 1, 1)
    expected = (3 * 4 + 1 * -2) / (3 + 1)
    assert linear_attention(queries, keys, values).flatten().tolist() == pytest.approx([expected, expected])


def test_linear_attention_never_divides_by_zero():
    lowest = torch.full((1, 3, 1, 4), -200.0)
    assert torch.equal(linear_attention(lowest, lowest, torch.ones_like(lowest)), torch.zeros_like(lowest))


def test_linear_attention_holds_half_precision_sums_over_many_classes():
    x = torch.full((1, 512, 1, 4), 30.0)
    out = linear_attention(x.half() / 30, x.half() / 30, 4 * x.half())
    assert out.isfinite().all()


@ATTENTIONS
@given(st.integers(1, 4), st.integers(1, 5))
def test_a_repeated_class_is_so_many_of_it(attend, classes, repeats):
    queries, keys, values = torch.randn(3, 2, classes, 2, 4)
    rows = [*range(classes - 1), *[classes - 1] * repeats]
    expected = attend(*(x[:, rows] for x in (queries, keys, values)))[:, :classes]
    torch.testing.assert_close(attend(queries, keys, values, repeats), expected, atol=1e-5, rtol=0)


def test_the_residual_is_doubled():
    block = ClassBlock(8, 0, 2, "linear")
    with torch.no_grad():
        for part in (block.attention.v, block.MLP[2]):
            part.weight.zero_()
            part.bias.zero_()
    x = torch.randn(2, 3, 4, 4, 8)
    assert torch.equal(block(x, None, (1, 1)), 2 * x)
    pooled = block(x, None, (4, 4))  # one place, which is added everywhere
    torch.testing.assert_close(pooled, x + x.mean((2, 3), keepdim=True), atol=1e-6, rtol=0)


def test_enlarging_aligns_the_corners():
    block = ClassBlock(8, 0, 2, "full")
    with torch.no_grad():
        for part in (block.attention.v, block.MLP[2]):
            part.weight.zero_()
            part.bias.zero_()
    x = torch.tensor([0.0, 0.0, 3.0, 3.0])[:, None, None].expand(1, 1, 4, 1, 8)
    out = block(x, None, (2, 1)) - x
    assert out[0, 0, :, 0, 0].tolist() == pytest.approx([0, 1, 2, 3])


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("attention", ["linear", "full"])
def test_fillers_are_read_like_classes_of_their_own(attention, fold):
    padded = randomise(ClassBlock(8, 4, 2, attention, 5, fold=fold))
    plain = ClassBlock(8, 4, 2, attention)
    plain.load_state_dict({name: value for name, value in padded.state_dict().items() if "padding" not in name})
    x, text = torch.randn(2, 3, 2, 2, 8), torch.randn(2, 3, 4)
    filled = torch.cat([x, padded.padding_tokens.view(1, 1, 1, 1, 8).expand(2, 2, 2, 2, 8)], dim=1)
    texts = torch.cat([text, padded.padding_guidance.expand(2, 2, 4)], dim=1)
    expected = plain(filled, texts, (1, 1))[:, :3]
    torch.testing.assert_close(padded(x, text, (1, 1)), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(padded(filled, texts, (1, 1)), plain(filled, texts, (1, 1)))


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_fillers_have_a_gradient_however_many_classes_there_are(classes):
    """Where there are none it is 0: training on several devices waits for every weight."""
    block = randomise(ClassBlock(8, 4, 2, "linear", 3))
    block(torch.randn(2, classes, 2, 2, 8), torch.randn(1, classes, 4), (1, 1)).square().sum().backward()
    for filler in (block.padding_tokens, block.padding_guidance):
        assert filler.grad.any() == (classes < 3)
