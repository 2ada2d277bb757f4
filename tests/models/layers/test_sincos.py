import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.layers.sincos import sincos, sincos_grid


def test_sines_come_first_then_cosines_the_fastest_wave_first():
    embedding = sincos(torch.tensor([[0.0, 3.0]]), 4)
    assert embedding.shape == (1, 2, 4)
    assert embedding[0, 0].tolist() == [0, 0, 1, 1]
    expected = [math.sin(3), math.sin(3 / 100), math.cos(3), math.cos(3 / 100)]
    assert embedding[0, 1].tolist() == pytest.approx(expected, abs=1e-6)


@given(first=st.floats(-500, 500), second=st.floats(-500, 500), shift=st.floats(-500, 500))
def test_likeness_depends_on_the_distance_alone(first, second, shift):
    positions = torch.tensor([first, second, first + shift, second + shift], dtype=torch.float64)
    a, b, c, d = sincos(positions, 32)
    assert (a @ b).item() == pytest.approx((c @ d).item(), abs=1e-6)
    assert (a @ a).item() == pytest.approx(16)


def test_the_column_has_the_first_half_of_the_grids_channels():
    table = sincos_grid(2, 3, 8)
    assert table.shape == (6, 8)
    assert table.dtype == torch.float32
    rows = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    columns = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 2.0])
    torch.testing.assert_close(table, torch.cat([sincos(columns, 4), sincos(rows, 4)], dim=-1))


def test_widths_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="must be even, got 5"):
        sincos(torch.zeros(1), 5)
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        sincos_grid(2, 2, 6)
