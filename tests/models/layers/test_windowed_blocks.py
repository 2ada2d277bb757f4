import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.layers.windowed_blocks import (
    ConvBlocks,
    WindowAttention,
    WindowedBlocks,
    from_windows,
    shift_mask,
    to_windows,
    window_layout,
)
from tests.models.helpers import randomise


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.data())
def test_windows_hold_neighbours_and_go_back(rows, columns, window, data):
    shift = data.draw(st.integers(0, window - 1))
    grid = (rows * window, columns * window)
    x = torch.arange(2 * grid[0] * grid[1] * 3).view(2, *grid, 3)
    windows = to_windows(x, window, shift)
    assert windows.shape == (2, window**2, rows * columns, 3)
    assert torch.equal(from_windows(windows, grid, window, shift), x)
    # Place (i, j) of window (r, c) is that of the map shifted to the upper left.
    row, column = (data.draw(st.integers(0, edge - 1)) for edge in grid)
    place = (row % window) * window + column % window
    number = (row // window) * columns + column // window
    assert torch.equal(windows[1, place, number], x[1, (row + shift) % grid[0], (column + shift) % grid[1]])


@pytest.mark.parametrize(
    ("grid", "window_size", "expected"),
    [((8, 8), 4, (4, 2)), ((4, 8), 4, (4, 0)), ((6, 9), 3, (3, 1)), ((4, 4), 12, (4, 0)), ((2, 2), 1, (1, 0))],
)
def test_layout_of_windows(grid, window_size, expected):
    assert window_layout(grid, window_size, shifted=True) == expected
    assert window_layout(grid, window_size, shifted=False) == (expected[0], 0)


def test_windows_that_do_not_tile_the_grid_are_refused():
    with pytest.raises(ValueError, match="the grid must be a multiple of its windows of 4 x 4, got 4 x 6: change"):
        window_layout((4, 6), 5, shifted=False)


def test_the_mask_keeps_apart_what_the_shift_brought_together():
    mask = shift_mask((4, 4), 2, 1)
    assert mask.shape == (4, 4, 4)
    assert not mask[0].any()  # nothing was rolled into the first window
    assert mask[1][0].tolist() == [0, -100, 0, -100]  # its right column was at the left edge
    assert mask[2][0].tolist() == [0, 0, -100, -100]
    assert (mask[3] == 0).sum() == 4


def test_the_mask_is_added_and_hides_only_by_its_size():
    module = randomise(WindowAttention(4, 0, 1))
    with torch.no_grad():
        for part in (module.q, module.k):
            part.weight.copy_(torch.eye(4))
            part.bias.zero_()
    x = torch.zeros(1, 1, 2, 1, 4)
    x[0, 0, 0, 0, 0], x[0, 0, 1, 0, 0] = 20.0, 30.0  # logits of the first: 200 and 300, of which 100 are taken
    mask = torch.tensor([[[0.0, -100.0], [0.0, 0.0]]])
    values = module.v(x)[0, 0, :, 0]
    expected = module.proj(values.mean(0))
    torch.testing.assert_close(module(x, None, mask)[0, 0, 0, 0], expected, atol=1e-4, rtol=0)


def test_only_a_shifted_block_has_a_mask_and_it_is_stored():
    names = set(WindowedBlocks(8, 4, 2, (4, 4), 2).state_dict())
    assert "block_2.attn_mask" in names
    assert "block_1.attn_mask" not in names
    assert "block_2.attn_mask" not in WindowedBlocks(8, 4, 2, (4, 4), 4).state_dict()


@pytest.mark.parametrize("blocks", [WindowedBlocks(8, 3, 2, (4, 4), 2), ConvBlocks(8, 3)])
def test_each_class_is_by_itself_and_reads_the_guidance(blocks):
    blocks = randomise(blocks).eval()
    x, guidance = torch.randn(2, 3, 4, 4, 8), torch.randn(2, 4, 4, 3)
    out = blocks(x, blocks.guide(guidance))
    torch.testing.assert_close(blocks(x[:, 1:2], blocks.guide(guidance))[:, 0], out[:, 1], atol=1e-5, rtol=0)
    other = blocks(x, blocks.guide(guidance.roll(1, 0)))
    assert (other - out).abs().flatten(1).amax(1).min() > 1e-3


@pytest.mark.parametrize("guidance", [0, 3])
def test_convolutions_are_those_of_the_concatenation(guidance):
    blocks = randomise(ConvBlocks(8, guidance)).eval()
    x, extra = torch.randn(2, 3, 5, 4, 8), torch.randn(2, 5, 4, guidance)
    seen = torch.cat([x, extra[:, None].expand(-1, 3, -1, -1, -1)], dim=-1).flatten(0, 1).permute(0, 3, 1, 2)
    expected = blocks.conv_layer(blocks.conv_linear(seen)).permute(0, 2, 3, 1).unflatten(0, (2, 3))
    out = blocks(x, blocks.guide(extra) if guidance else None)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
