import copy
import json
import warnings

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from models.layers.clip_towers import CLIPTowers
from models.layers.clip_weights import _require_plain, build_clip, split_attention
from models.layers.image_tower import CLIP_MEAN
from tests.models.small_clip import CLIP, shaken, small_clip

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
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(b"no weights")
    for weights, message in [
        (None, "got null"),
        (str(file), r"do not fit small-clip: .*missing key 'positional_embedding'"),
        (str(damaged), r"cannot be read \(UnpicklingError\): give a .* file of small-clip"),
        ("openai", "with clip_model small-clip, one of no tags, got 'openai'"),
    ]:
        with pytest.raises(ValueError, match=message):
            build_clip(small_clip, weights, own_residual=False)
    with pytest.raises(ValueError, match="a model of open_clip, got 'ViT-B-99'"):
        build_clip("ViT-B-99", "random", own_residual=False)


def test_a_file_of_another_resolution_is_not_resized_in_silence(small_clip, tmp_path):
    state = open_clip.create_model(small_clip).state_dict()
    state["visual.positional_embedding"] = torch.zeros(26, 32)
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=r"'visual.positional_embedding' must be \[17, 32\], got \[26, 32\]"):
        build_clip(small_clip, str(tmp_path / "clip.pt"), own_residual=False)


def test_what_cannot_be_fetched_says_so(monkeypatch):
    def unreachable(cfg):
        raise OSError

    monkeypatch.setattr(open_clip, "download_pretrained", unreachable)
    with pytest.raises(ValueError, match=r"could not be fetched .*set clip_weights to the file"):
        build_clip("ViT-B-16-quickgelu", "openai", own_residual=False)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A CLIP model with random weights, and the file that OpenAI would publish of it: TorchScript, in half precision."""
    clip = shaken(open_clip.model.CLIP(**CLIP)).half()
    state = clip.state_dict()
    mask = clip.attn_mask
    for name in ("context_length", "vocab_size", "attn_mask"):
        delattr(clip, name)
    clip.attn_mask = mask  # no buffer there
    for name in ("input_resolution", "context_length", "vocab_size"):
        clip.register_buffer(name, torch.tensor(12))
    path = tmp_path_factory.mktemp("openai") / "ViT-B-16.pt"
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        torch.jit.script(clip).save(path)
    return state, path


def test_archives_of_openai_are_loaded(small_clip, archive):
    state, path = archive
    with warnings.catch_warnings(action="error"):
        towers, identity = build_clip(small_clip, str(path), own_residual=False)
    assert identity["source"] == "ViT-B-16.pt"
    found, expected = towers.state_dict(), split_attention(state)
    assert found.keys() == expected.keys()
    assert all(value.dtype == torch.float32 for value in found.values())
    assert all(torch.equal(value, expected[name].float()) for name, value in found.items())


def test_archives_of_openai_need_their_activation(archive, monkeypatch):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small-gelu", {**CLIP, "quick_gelu": False})
    with pytest.raises(ValueError, match="set clip_model to the model that they were trained as"):
        build_clip("small-gelu", str(archive[1]), own_residual=False)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small-gelu-quickgelu", CLIP)
    with pytest.raises(ValueError, match="set clip_model to small-gelu-quickgelu"):
        build_clip("small-gelu", str(archive[1]), own_residual=False)


def test_a_tag_brings_its_pixel_statistics(small_clip, tmp_path, monkeypatch):
    file = tmp_path / "clip.pt"
    torch.save(shaken(open_clip.create_model(small_clip)).state_dict(), file)
    tag = {"file": str(file), "quick_gelu": True, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, small_clip, {"other": tag})
    towers, identity = build_clip(small_clip, "other", own_residual=False)
    assert identity["source"] == "open_clip: small-clip other"
    assert towers.pixels.mean.flatten().tolist() == pytest.approx(tag["mean"])
    assert towers.pixels.std.flatten().tolist() == pytest.approx(tag["std"])


def test_what_is_published_beside_a_file_holds(small_clip, tmp_path):
    file, beside = tmp_path / "open_clip_model.safetensors", tmp_path / "open_clip_config.json"
    save_file(shaken(open_clip.create_model(small_clip)).state_dict(), file)
    assert build_clip(small_clip, str(file), own_residual=False)[0].pixels.mean.flatten().tolist() == pytest.approx(
        CLIP_MEAN
    )
    statistics = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    beside.write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": statistics}))
    towers, identity = build_clip(small_clip, str(file), own_residual=False)
    assert identity["source"].startswith("open_clip_model.safetensors with open_clip_config.json ")
    assert towers.pixels.mean.flatten().tolist() == pytest.approx(statistics["mean"])
    assert towers.pixels.std.flatten().tolist() == pytest.approx(statistics["std"])
    beside.write_text("{}")
    with pytest.raises(ValueError, match=r"open_clip_config.json cannot be read \(KeyError\): mend it"):
        build_clip(small_clip, str(file), own_residual=False)
    beside.write_text(json.dumps({"model_cfg": {**CLIP, "quick_gelu": False}, "preprocess_cfg": statistics}))
    with pytest.raises(ValueError, match="trained with quick_gelu False, and clip_model small-clip has True"):
        build_clip(small_clip, str(file), own_residual=False)


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        ("ViT-B-16", "openai", "openai were trained with quick_gelu True, .* set clip_model to ViT-B-16-quickgelu"),
        ("ViT-L-14", "metaclip_fullcc", "set clip_model to ViT-L-14-quickgelu"),
        (
            "ViT-B-16-quickgelu",
            "laion2b_s34b_b88k",
            "with clip_model ViT-B-16-quickgelu, one of openai, .*, got 'laion2b",
        ),
    ],
)
def test_a_tag_must_have_the_activation_of_the_model(model, weights, message, monkeypatch):
    monkeypatch.setattr(open_clip, "download_pretrained", lambda tag: pytest.fail("fetched first"))
    with pytest.raises(ValueError, match=message):
        build_clip(model, weights, own_residual=False)


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ("ViT-L-14-CLIPA", "no_ln_pre, pool_type, final_ln_after_pool, hf_tokenizer_name, .*no_causal_mask"),
        ("ViT-H-14-worldwide-quickgelu", "hf_tokenizer_name, pool_type"),
        ("ViT-B-16-SigLIP", "timm_model_name"),
        ("coca_ViT-L-14", "attentional_pool"),
        ("roberta-ViT-B-32", "hf_model_name"),
        ("RN50", "layers of a ResNet"),
    ],
)
def test_other_architectures_are_refused(model, what):
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match=f"got '{model}' with .*{what}.*: try ViT-B-16-quickgelu"),
    ):
        build_clip(model, None, own_residual=False)


@pytest.mark.parametrize(
    "model", ["ViT-B-16-quickgelu", "ViT-L-14-336-quickgelu", "ViT-H-14", "ViT-bigG-14", "ViT-S-16"]
)
def test_plain_architectures_are_not(model):
    _require_plain(model)
