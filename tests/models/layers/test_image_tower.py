import torch
from torch.utils.flop_counter import FlopCounterMode

from models.layers.image_tower import SmallImageTower
from tests.models.helpers import randomise


def tower(**changes):
    options = {"crop_size": 32, "grid": (4, 4), "widths": (6, 10, 16), "layers": 2, "heads": 2, "channels": 12}
    return randomise(SmallImageTower(**{**options, "guidance": (True, True, True), **changes}))


def test_maps_have_one_two_and_four_times_the_grid():
    features, guidance = tower()(torch.rand(2, 3, 32, 32))
    assert features.shape == (2, 12, 4, 4)
    assert guidance[0] is features
    assert [tuple(map_.shape) for map_ in guidance[1:]] == [(2, 10, 8, 8), (2, 6, 16, 16)]
    assert tower(guidance=(False, True, False))(torch.rand(1, 3, 32, 32)).guidance[::2] == (None, None)


def test_every_pixel_reaches_the_finest_map():
    for crop_size in (16, 32, 64, 128):
        image = torch.rand(1, 3, crop_size, crop_size, requires_grad=True)
        tower(crop_size=crop_size)(image).guidance[2].square().sum().backward()
        assert image.grad.abs().sum(1).all()


def test_pixels_are_normalised():
    net, image = tower(), torch.rand(1, 3, 32, 32)
    expected = net(image).features
    net.pixels = torch.nn.Identity()
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    torch.testing.assert_close(net((image - mean[:, None, None]) / std[:, None, None]).features, expected)


def test_flops():
    net = tower()
    with FlopCounterMode(display=False) as counter:
        net(torch.rand(1, 3, 32, 32))
    assert net.flops() == counter.get_total_flops()
