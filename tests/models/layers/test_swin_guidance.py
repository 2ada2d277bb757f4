import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from models.layers.swin_guidance import SwinGuidance, published_keys
from tests.models.helpers import randomise
from tests.models.small_clip import small_swin

__all__ = ["small_swin"]
ALL = (True, True, True)


def test_maps_are_those_of_the_whole_network_behind_norms(small_swin, tmp_path):
    whole = randomise(small_swin("swin_base_patch4_window12_384.ms_in22k", img_size=64)).eval()
    torch.save(whole.state_dict(), tmp_path / "swin.pth")
    net = SwinGuidance((4, 4), str(tmp_path / "swin.pth"), ALL)
    image, seen = torch.rand(2, 3, 90, 70), []
    for layer in whole.layers:
        layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        resized = F.interpolate(image, size=(64, 64), mode="bilinear", align_corners=False)
        whole((resized - mean[:, None, None]) / std[:, None, None])
    features, guidance = net(image)
    assert features is None
    for found, stage in zip(guidance, seen[2::-1], strict=True):
        torch.testing.assert_close(found, F.layer_norm(stage, stage.shape[-1:]).movedim(-1, 1), atol=1e-5, rtol=1e-5)
    assert [tuple(found.shape[1:]) for found in guidance] == [(64, 4, 4), (32, 8, 8), (16, 16, 16)]
    assert (net.source, len(net.sha256)) == ("swin.pth", 64)


def test_it_is_frozen_and_stays_in_evaluation_mode(small_swin):
    net = SwinGuidance((4, 4), "random", (True, False, True)).train()
    assert not any(part.training for part in net.modules())
    assert not any(weight.requires_grad for weight in net.parameters())
    assert net(torch.rand(1, 3, 64, 64)).guidance[1] is None


@pytest.mark.parametrize(
    "grid", [(4, 4), (5, 5), (1, 7)]
)  # windows of 4 tile the maps, need padding, or shrink as well
def test_flops(small_swin, grid):
    with torch.device("meta"):
        net, image = SwinGuidance(grid, None, ALL), torch.empty(2, 3, 90, 70)
    with FlopCounterMode(display=False) as counter:
        net(image)
    assert counter.get_total_flops() == 2 * net.flops()


def test_weights_are_never_random_in_silence(small_swin, tmp_path, monkeypatch):
    import timm.models._hub

    def unreachable(*_):
        raise OSError

    monkeypatch.setattr(timm.models._hub, "download_from_hf", unreachable)
    torch.save({"other": torch.ones(1)}, tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    for weights, message in [
        (None, "got null"),
        (str(tmp_path / "none.pth"), "must be a file"),
        (str(tmp_path / "other.pth"), "missing key 'patch_embed.proj.weight'"),
        (str(tmp_path / "broken.pth"), "cannot be read"),
        ("timm", "could not be fetched .*set guidance_weights to its path"),
    ]:
        with pytest.raises(ValueError, match=message):
            SwinGuidance((4, 4), weights, ALL)


def test_published_names():
    names = {
        "patch_embed.norm.bias": "swin.patch_embed.norm.bias",
        "layers.0.blocks.1.attn.qkv.weight": "swin.layers_0.blocks.1.attn.qkv.weight",
        "layers.2.blocks.17.mlp.fc1.bias": "swin.layers_2.blocks.17.mlp.fc1.bias",
        "layers.1.downsample.reduction.weight": "swin.layers_2.downsample.reduction.weight",
        "norm1.weight": "norms.1.weight",
    }
    state = dict.fromkeys([*names, "layers.0.blocks.1.attn.relative_position_index"], torch.ones(1))
    assert list(published_keys(state)) == list(names.values())
