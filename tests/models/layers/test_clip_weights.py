import copy

import open_clip
import pytest
import torch

from models.layers.clip_towers import CLIPTowers
from models.layers.clip_weights import build_clip, split_attention
from tests.models.small_clip import shaken, small_clip

__all__ = ["small_clip"]


def test_weights_come_from_a_file_and_never_in_silence(small_clip, tmp_path):
    clip = shaken(open_clip.create_model(small_clip))
    towers = CLIPTowers(copy.deepcopy(clip), own_residual=False)
    file = tmp_path / "clip.pt"
    torch.save(clip.state_dict(), file)
    loaded, identity = build_clip(small_clip, str(file), own_residual=False)
    assert (identity["source"], len(identity["sha256"])) == ("clip.pt", 64)
    image = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(loaded.dense(image, (4, 4))[0], towers.dense(image, (4, 4))[0])
    split = split_attention(clip.state_dict())
    assert all(torch.equal(value, split[name]) for name, value in loaded.state_dict().items())

    torch.save({"other": torch.ones(1)}, file)
    for weights, message in [
        (None, "got null"),
        (str(file), "do not fit small-clip"),
        ("openai", "no tags, got 'openai'"),
    ]:
        with pytest.raises(ValueError, match=message):
            build_clip(small_clip, weights, own_residual=False)
    with pytest.raises(ValueError, match="a model of open_clip, got 'ViT-B-99'"):
        build_clip("ViT-B-99", "random", own_residual=False)


def test_what_cannot_be_fetched_says_so(monkeypatch):
    def unreachable(cfg):
        raise OSError

    monkeypatch.setattr(open_clip, "download_pretrained", unreachable)
    with pytest.raises(ValueError, match=r"could not be fetched .*set clip_weights to the file"):
        build_clip("ViT-B-16-quickgelu", "openai", own_residual=False)
