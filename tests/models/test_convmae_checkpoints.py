import pytest
import torch

from bench.interop import check_parity, load_parity_fixture
from models.convmae import DESCENDANT, ConvMAE, ConvMAEConfig, ConvMAEMemoryBackbone
from models.layers.convmae_encoder import PRETRAINING
from tests.models.helpers import randomise
from tests.models.memory_clips import SMALL, build, clip


@pytest.mark.shared
def test_parity_with_the_shared_fixtures(shared_dir):
    paths = sorted((shared_dir / "parity").rglob("convmae-memory*.safetensors"))
    assert len(paths) >= 2
    for path in paths:
        report = check_parity(path, lambda name: ConvMAEMemoryBackbone)
        assert report.passed, report.lines()
        names = {deviation.name for deviation in report.deviations}
        assert names >= {"f16", "f8", "f4", "patch_embed1_memory.proj.weight"}
        assert len(report.deviations) == len(load_parity_fixture(path).gradient_norms) + 4


def descendant(state):
    """A file of the published descendant: prefixed, with the parts that this model lacks."""
    extra = {
        "convmae.cls_token": torch.zeros(1, 1, 24),
        "convmae.patch_embed4_block4.weight": torch.zeros(24, 24),
        "convmae.patch_embed4_block5.bias": torch.zeros(24),
        "convmae.blocks4.0.attn.qkv.weight": torch.zeros(72, 24),
        "convmae.blocks5.0.norm1.bias": torch.zeros(24),
        "decoder.pred.weight": torch.zeros(1, 2, 3, 3),
    }
    assert {key.removeprefix("convmae.").split(".")[0] for key in extra} == DESCENDANT
    return {**{f"convmae.{key}": value for key, value in state.items()}, **extra}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"model": {f"_orig_mod.module.{key}": value for key, value in state.items()}},
        descendant,
        lambda state: {f"module.{key}": value for key, value in descendant(state).items()},
    ],
    ids=["plain", "ddp", "compiled", "descendant", "descendant ddp"],
)
def test_checkpoints_of_the_memory_backbone(wrap):
    model = build()
    loaded = ConvMAEMemoryBackbone.from_reference(wrap(model.state_dict()), **SMALL).eval()
    batch = clip()
    for name, output in model(**batch).items():
        assert torch.equal(loaded(**batch)[name], output)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.weight": None}, "missing key 'norm.weight'"),
        ({"blocks6.weight": torch.zeros(1)}, "unexpected key 'blocks6.weight'"),
        ({"cls_tokens": torch.zeros(1)}, "unexpected key 'cls_tokens'"),
        ({"pos_embed": torch.zeros(1, 4, 24)}, r"key 'pos_embed' must be \[1, 5, 24\], got \[1, 4, 24\]"),
        (
            {"convmae.norm.bias": torch.zeros(24)},
            r"state\['norm.bias'\] is there with and without the prefix 'convmae.'",
        ),
        (
            {"patch_embed1_memory.proj.weight": torch.zeros(12, 3, 4, 4)},
            r"must be \[12, 5, 4, 4\], got \[12, 3, 4, 4\]",
        ),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(change, message):
    state = {key: value for key, value in {**build().state_dict(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        ConvMAEMemoryBackbone.from_reference(state, **SMALL)


def test_a_checkpoint_of_training_with_one_object_gets_a_channel():
    state = build().state_dict()
    name = "patch_embed1_memory.proj.weight"
    loaded = ConvMAEMemoryBackbone.from_reference({**state, name: state[name][:, :4]}, **SMALL).state_dict()
    assert torch.equal(loaded[name][:, :4], state[name][:, :4])
    assert 0.01 < loaded[name][:, 4].std() < 0.03
    assert all(torch.equal(value, loaded[key]) for key, value in state.items() if key != name)


def encoder_file(pretraining=True):
    """A checkpoint of the published encoder, with another position table, and the parts that only pretraining has."""
    encoder = randomise(ConvMAE(ConvMAEConfig(**SMALL)))
    encoder.pos_embed = ConvMAE(ConvMAEConfig(**SMALL)).pos_embed
    state = {**encoder.state_dict(), "pos_embed": torch.randn(1, 196, 24)}
    extra = {f"{part}.weight": torch.zeros(1) for part in PRETRAINING} if pretraining else {}
    return {"model": state | extra}, encoder


@pytest.mark.parametrize("pretraining", [True, False])
def test_the_published_encoder_becomes_the_backbone(pretraining):
    file, encoder = encoder_file(pretraining)
    state = encoder.state_dict()
    model = ConvMAEMemoryBackbone.from_convmae_encoder(file, **SMALL)
    ours = model.state_dict()
    query, memory = (ours.pop(f"patch_embed1_{stream}.proj.weight") for stream in ("query", "memory"))
    assert torch.equal(query, state["patch_embed1.proj.weight"])
    assert torch.equal(memory[:, :3], query)
    assert 0.01 < memory[:, 3:].std() < 0.03
    for key, value in ours.items():
        stage, _, rest = key.partition(".")
        assert torch.equal(value, state["patch_embed1." + rest if stage.startswith("patch_embed1") else key]), key
    image = torch.randn(2, 3, 48, 32)
    tokens, f4, f8 = model.encode_query(image)
    for block in model.blocks3:
        tokens = block(tokens)
    expected = encoder(image)
    assert torch.equal(model.to_map(tokens, f8), expected["f16"])
    assert torch.equal(f4, expected["f4"])


def test_the_published_encoder_alone():
    file, encoder = encoder_file()
    loaded = ConvMAE.from_reference(file, **SMALL)
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(image)["f16"], encoder(image)["f16"])
    for key, value in (("head.weight", torch.zeros(1)), ("blocks3.0.attn.proj.bias", None)):
        broken = {name: part for name, part in {**file["model"], key: value}.items() if part is not None}
        for load in (ConvMAE.from_reference, ConvMAEMemoryBackbone.from_convmae_encoder):
            with pytest.raises(ValueError, match=f"key '{key}'"):
                load(broken, **SMALL)


def test_learned_temperatures_start_at_the_published_scale():
    plain = build()
    loaded = ConvMAEMemoryBackbone.from_reference(plain.state_dict(), **SMALL, temperature="learned").eval()
    batch = clip()
    assert torch.equal(loaded(**batch)["f16"], plain(**batch)["f16"])
    with torch.no_grad():
        loaded.blocks3[1].log_scale[1] = 0.5
    again = ConvMAEMemoryBackbone.from_reference(loaded.state_dict(), **SMALL, temperature="learned").eval()
    assert not torch.allclose(loaded(**batch)["f16"], plain(**batch)["f16"])
    assert torch.equal(again(**batch)["f16"], loaded(**batch)["f16"])
