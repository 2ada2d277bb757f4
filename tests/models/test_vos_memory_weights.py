"""Where weights come from: a whole network's backbone, an encoder alone, a file."""

import hashlib

import pytest
import torch

from models.convmae import ConvMAE, ConvMAEConfig
from models.vos_memory import VOSMemory, VOSMemoryConfig
from tests.models.helpers import randomise
from tests.models.small_vos import SMALL, build


def backbone_options(model):
    return {name: getattr(model.config, name) for name in ("image_size", "strides", "widths", "layers", "heads")}


def test_a_backbone_is_loaded_and_the_decoder_left():
    source, model = build(), randomise(VOSMemory(VOSMemoryConfig(**SMALL)), seed=1)
    before = {name: value.clone() for name, value in model.decoder.state_dict().items()}
    model.load_backbone(source.state_dict())
    assert all(
        torch.equal(value, model.convmae.state_dict()[name]) for name, value in source.convmae.state_dict().items()
    )
    assert all(torch.equal(value, model.decoder.state_dict()[name]) for name, value in before.items())


def test_an_encoder_alone_starts_both_embeddings():
    encoder = randomise(ConvMAE(ConvMAEConfig(**backbone_options(build()))))
    model = build()
    torch.manual_seed(5)
    model.load_backbone({"model": encoder.state_dict()})
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    weight = encoder.patch_embed1.proj.weight
    assert torch.equal(model.convmae.patch_embed1_query.proj.weight, weight)
    assert torch.equal(model.convmae.patch_embed1_memory.proj.weight[:, :3], weight)
    assert torch.equal(model.convmae.blocks3[0].attn.qkv.weight, encoder.blocks3[0].attn.qkv.weight)


def test_a_backbone_that_does_not_fit_is_told():
    state = build().state_dict()
    del state["convmae.norm.weight"]
    with pytest.raises(ValueError, match=r"missing key 'norm.weight'"):
        build().load_backbone(state)


def test_a_weight_file_is_an_option_and_is_recorded(tmp_path):
    source, path = build(), tmp_path / "backbone.pth"
    torch.save({"model": source.state_dict()}, path)
    torch.manual_seed(0)
    plain = VOSMemory(VOSMemoryConfig(**SMALL))
    torch.manual_seed(0)
    model = VOSMemory(VOSMemoryConfig(**SMALL, backbone_weights=str(path)))
    assert torch.equal(model.convmae.norm.weight, source.convmae.norm.weight)
    assert torch.equal(model.decoder.pred.weight, plain.decoder.pred.weight)
    (part,) = model.pretrained_parts()
    assert part["name"] == "convmae"
    assert part["source"] == "backbone.pth"
    assert part["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert part["parameters"] == sum(weight.numel() for weight in model.convmae.parameters())
    assert plain.pretrained_parts() == []
    with torch.device("meta"):
        VOSMemory(VOSMemoryConfig(**SMALL, backbone_weights="elsewhere.pth"))


def test_weight_files_that_cannot_be_read_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"backbone_weights must be a file, got 'nowhere\.pth': mend the path"):
        VOSMemory(VOSMemoryConfig(**SMALL, backbone_weights="nowhere.pth"))
    path = tmp_path / "text.pth"
    path.write_text("no weights")
    with pytest.raises(ValueError, match=r"text.pth cannot be read \(\w+\): give a .pt or .pth file"):
        VOSMemory(VOSMemoryConfig(**SMALL, backbone_weights=str(path)))
