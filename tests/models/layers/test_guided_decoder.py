import pytest
import torch

from models.layers.guided_decoder import GuidedUp, require_groups
from tests.models.helpers import randomise


@pytest.mark.parametrize("guidance", [0, 5])
def test_the_guidance_is_concatenated_for_every_class(guidance):
    up = randomise(GuidedUp(12, 32, guidance))
    maps, beside = torch.randn(2 * 3, 12, 4, 5), torch.randn(2, guidance, 8, 10)
    seen = torch.cat([up.up(maps), beside.repeat_interleave(3, 0)], dim=1)
    out = up(maps, up.guide(beside) if guidance else None)
    assert out.shape == (6, 32, 8, 10)
    torch.testing.assert_close(out, up.conv.double_conv(seen), atol=1e-5, rtol=1e-5)


def test_groups_have_sixteen_channels():
    up = GuidedUp(12, 64, 4)
    assert [up.conv.double_conv[number].num_groups for number in (1, 4)] == [4, 4]
    assert {name for name, _ in up.named_parameters() if name.endswith("bias")} == {
        "up.bias",
        "conv.double_conv.1.bias",
        "conv.double_conv.4.bias",
    }


@pytest.mark.parametrize(("width", "mend"), [(8, 16), (49, 48), (0, 16)])
def test_widths_without_groups_are_refused(width, mend):
    with pytest.raises(ValueError, match=f"got {width}: try {mend}"):
        require_groups("decoder_widths", width)
    require_groups("decoder_widths", mend)
