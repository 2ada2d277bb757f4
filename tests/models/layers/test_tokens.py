"""Places of tokens, taken from their indices, and the token that is never hidden."""

import math

import pytest
import torch

from models.layers.sincos import sincos
from models.layers.tokens import ModalityEmbedding, TokenPositions


def test_the_place_of_a_token_is_that_of_its_day_and_its_patch():
    positions = TokenPositions(8, calendar=True)
    day_of_year = torch.tensor([[10.0, 11.0, 12.0], [200.0, 201.0, 202.0]])
    patches = torch.tensor([[[0, 3], [5, 1]], [[2, 2], [7, 0]]]).float()
    tables = positions(day_of_year, patches)
    index = torch.tensor([[[5, 0]], [[2, 3]]])  # [B, K, V] of day * 2 + patch
    found = tables.of_patches(index)
    for sample in (0, 1):
        for token in (0, 1):
            day, patch = divmod(int(index[sample, 0, token]), 2)
            angle = float(day_of_year[sample, day]) * 2 * math.pi / 365.25
            expected = sincos(torch.tensor(float(day)), 8)
            expected = expected + positions.calendar(torch.tensor([math.sin(angle), math.cos(angle)]))
            row, column = patches[sample, patch]
            expected = expected + torch.cat([sincos(column, 4), sincos(row, 4)])
            torch.testing.assert_close(found[sample, 0, token], expected, atol=1e-5, rtol=1e-5)
    days = tables.of_days(torch.tensor([[[2]], [[1]]]))
    torch.testing.assert_close(days[:, 0, 0], torch.stack([tables.days[0, 2], tables.days[1, 1]]))


def test_a_year_ends_where_it_begins():
    days = TokenPositions(8, calendar=True)(torch.tensor([[0.0], [365.25], [100.0]]), None).days
    torch.testing.assert_close(days[0], days[1], atol=1e-5, rtol=1e-5)
    assert (days[0] - days[2]).abs().max() > 0.1


def test_without_calendar_there_is_nothing_to_learn():
    positions = TokenPositions(8, calendar=False)
    assert not list(positions.parameters())
    assert positions.flops(90) == 0
    tables = positions(torch.tensor([[1.0, 2.0]]), None)
    assert tables.patches is None
    assert torch.equal(tables.days[0], sincos(torch.arange(2.0), 8))


@pytest.mark.parametrize("statics", [0, 3])
def test_one_token_comes_first_even_where_none_is_visible(statics):
    embedding = ModalityEmbedding(5, 8, statics)
    attributes = torch.randn(2, statics) if statics else None
    tokens = embedding(torch.randn(2, 0, 5), torch.zeros(2, 0, 8), attributes)
    assert tokens.shape == (2, 1, 8)
    assert torch.equal(tokens[0], tokens[1]) == (not statics)
    assert embedding.flops(4) == 2 * 4 * 5 * 8 + 2 * statics * 8
