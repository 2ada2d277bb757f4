import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.layers.text_tower import BYTES, SmallTextTower, TextCache
from tests.models.helpers import randomise


def small():
    return randomise(SmallTextTower(BYTES, width=16, layers=2, heads=2, channels=12))


def ids(*texts, length=12):
    return torch.tensor([list(text.encode().ljust(length, b"\0")) for text in texts])


def test_padding_does_not_matter_and_order_does():
    tower = small()
    short, long = tower.encode(ids("red cone", length=8)), tower.encode(ids("red cone", length=20))
    torch.testing.assert_close(short, long, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(short, tower.encode(ids("cone red", length=8)), atol=1e-3)


def test_without_blocks_a_token_adds_the_same_beside_any_other():
    tower = randomise(SmallTextTower(BYTES, width=16, layers=0, heads=2, channels=12))
    first, second, third, fourth = tower.encode(torch.tensor([[5, 6, 0], [5, 8, 0], [7, 6, 0], [7, 8, 0]]))
    torch.testing.assert_close(first - second, third - fourth, atol=1e-5, rtol=1e-4)
    assert (first - second).abs().max() > 1e-2


def test_an_empty_text_is_finite():
    assert small().encode(ids("", "a")).isfinite().all()


def test_flops():
    tower = small()
    with FlopCounterMode(display=False) as counter:
        tower.project(tower.encode(ids("a", "b", "c")))
    assert 3 * (tower.encode_flops(12) + tower.project_flops()) == counter.get_total_flops()


class Counting(torch.nn.Module):
    """A tower that remembers what it read."""

    unread = ("other.",)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.other = torch.nn.Linear(1, 1)
        self.read = []

    def encode(self, tokens):
        self.read += tokens.tolist()
        return self.weight * tokens[:, :1]


def test_the_cache_reads_each_text_once():
    cache, tower, texts = TextCache(), Counting(), torch.tensor([[5, 0], [6, 0], [5, 0], [1280, 0], [5, 5]])
    assert cache.encode(tower, texts)[:, 0].tolist() == [5, 6, 5, 1280, 5]
    assert sorted(tower.read) == [[5, 0], [5, 5], [6, 0], [1280, 0]]
    more = torch.tensor([[7, 0, 0], [5, 0, 0], [0, 5, 0]])  # longer padding is the same text, leading padding is not
    assert cache.encode(tower, more)[:, 0].tolist() == [7, 5, 0]
    assert tower.read[4:] == [[7, 0, 0], [0, 5, 0]]


@pytest.mark.parametrize("change", ["load", "in place", "replace"])
def test_the_cache_forgets_when_the_weights_change(change):
    cache, tower, texts = TextCache(), Counting(), torch.tensor([[5, 0]])
    cache.encode(tower, texts)
    with torch.no_grad():
        if change == "load":
            tower.load_state_dict({**tower.state_dict(), "weight": torch.tensor([2.0])})
        elif change == "in place":
            tower.weight.mul_(2)
        else:
            tower.weight = torch.nn.Parameter(torch.tensor([2.0]))
    assert cache.encode(tower, texts).item() == 10


def test_the_cache_keeps_what_other_weights_and_moves_do_not_change():
    cache, tower, texts = TextCache(), Counting(), torch.tensor([[5, 0]])
    cache.encode(tower, texts)
    with torch.no_grad():
        tower.other.weight.mul_(2)
    tower.weight.data = tower.weight.data.clone()  # as a move to a device and back does
    assert cache.encode(tower, texts).item() == 5
    assert len(tower.read) == 1


def test_weights_made_under_inference_mode_are_read_in_every_call():
    with torch.inference_mode():
        cache, tower, texts = TextCache(), Counting(), torch.tensor([[5, 0], [5, 0]])
        assert cache.encode(tower, texts)[:, 0].tolist() == [5, 5]
        tower.weight.mul_(2)
        assert cache.encode(tower, texts)[:, 0].tolist() == [10, 10]
    assert cache.encode(tower, texts)[:, 0].tolist() == [10, 10]
    assert tower.read == [[5, 0]] * 3


def test_what_was_cached_in_evaluation_can_be_trained_on():
    cache, tower, texts = TextCache(), Counting(), torch.tensor([[5, 0]])
    with torch.inference_mode():
        cache.encode(tower, texts)
    factor = torch.ones(1, requires_grad=True)
    (cache.encode(tower, texts) * factor).sum().backward()
    assert factor.grad.item() == 5
    assert copy.deepcopy(cache).encode(tower, texts).item() == 5
    assert len(tower.read) == 2
