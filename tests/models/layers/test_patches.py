import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.layers.patches import PatchTokenizer, patchify, unpatchify


def test_order_is_row_column_channel_and_patches_go_row_by_row():
    channel, row, column = torch.meshgrid(torch.arange(2), torch.arange(4), torch.arange(6), indexing="ij")
    patches = patchify(100 * channel + 10 * row + column, 2)
    assert patches.shape == (6, 8)
    assert patches[0].tolist() == [0, 100, 1, 101, 10, 110, 11, 111]
    assert patches[1, 0] == 2
    assert patches[3, 0] == 20


@given(
    lead=st.lists(st.integers(1, 3), max_size=2),
    channels=st.integers(1, 4),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    patch_size=st.integers(1, 4),
)
def test_unpatchify_is_the_inverse(lead, channels, rows, columns, patch_size):
    pixels = torch.rand(*lead, channels, rows * patch_size, columns * patch_size)
    patches = patchify(pixels, patch_size)
    assert patches.shape == (*lead, rows * columns, patch_size**2 * channels)
    assert torch.equal(unpatchify(patches, patch_size, rows * patch_size, columns * patch_size), pixels)


@pytest.mark.parametrize("size", [(15, 16), (16, 15), (4, 16)])
def test_sizes_that_do_not_divide_are_refused(size):
    with pytest.raises(ValueError, match=f"patch_size 8, got {size[0]} x {size[1]}"):
        patchify(torch.zeros(3, *size), 8)


def test_tokenizer_stays_in_fp32_under_autocast():
    tokenizer, pixels = PatchTokenizer(9, 8, 32), torch.rand(2, 9, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        tokens = tokenizer(pixels)
    assert tokens.dtype == torch.float32
    assert torch.equal(tokens, tokenizer(pixels))
