"""Published checkpoints of CAT-Seg, of both versions, and the CLIP within."""

import re

import pytest
import torch

from models.catseg import CATSeg, CATSegConfig
from tests.models.small_catseg import CLIP_2023, CLIP_2024, inputs, narrow
from tests.models.small_clip import shaken, small_clip, small_swin

__all__ = ["narrow", "small_clip", "small_swin"]


def published(model):
    """The model's weights as checkpoints of CAT-Seg hold them; the fused attention of 2023 too."""
    state, fused = {}, {}
    for name, value in model.state_dict().items():
        head, _, rest = name.partition(".")
        if head == "aggregator":
            state[f"sem_seg_head.predictor.transformer.{rest}"] = value
        elif head == "image_tower":
            state[rest] = value
        elif head == "clip":
            key = f"sem_seg_head.predictor.clip_model.{rest}"
            if model.config.version == "2023" and key.endswith("_proj_weight"):
                fused.setdefault(key[: -len("q_proj_weight")], {})[key[-len("q_proj_weight")]] = value
            else:
                state[key] = value
        else:
            key = rest.replace("norms.", "norm")
            key = re.sub(r"swin\.layers_(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key)
            key = re.sub(r"swin\.layers_(\d)", r"layers.\1", key).removeprefix("swin.")
            state[f"backbone.{key}"] = value
    for stem, parts in fused.items():
        state[f"{stem}in_proj_weight"] = torch.cat([parts[part] for part in "qkv"])
    return state


@pytest.mark.parametrize("options", [CLIP_2024, CLIP_2023], ids=["2024", "2023"])
def test_the_last_block_of_clip_is_that_of_the_version(options, narrow):
    assert CATSeg(CATSegConfig(**options)).clip.own_residual == (options is CLIP_2023)


@pytest.mark.parametrize("options", [CLIP_2024, CLIP_2023], ids=["2024", "2023"])
def test_published_checkpoints_load_strictly(options, narrow):
    model = CATSeg(CATSegConfig(**options)).eval()
    for part in model.children():
        shaken(part)
    state = published(model)
    assert {key.split(".")[0] for key in state} - {"sem_seg_head"} == (
        {"backbone"} if options is CLIP_2023 else {"upsample1", "upsample2"}
    )
    loaded = CATSeg.from_reference({"model": state}, **options).eval()
    batch = inputs(prompts=options.get("prompts", 1), highest=98)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch)["logits"], model(**batch)["logits"], atol=0, rtol=0)
    for key in ("sem_seg_head.predictor.transformer.head.weight", "sem_seg_head.predictor.clip_model.visual.proj"):
        with pytest.raises(ValueError, match=f"missing key '[a-z.]*{key.rsplit('.', 2)[-1]}'"):
            CATSeg.from_reference({name: value for name, value in state.items() if name != key}, **options)
    with pytest.raises(ValueError, match=r"unexpected key 'criterion\.weight'"):
        CATSeg.from_reference({**state, "criterion.weight": torch.ones(1)}, **options)


@pytest.mark.parametrize("options", [CLIP_2024, CLIP_2023], ids=["2024", "2023"])
def test_what_of_clip_is_trained_gets_gradients(options, narrow):
    model = CATSeg(CATSegConfig(**options))
    for part in model.children():
        shaken(part)
    model(**inputs(prompts=options.get("prompts", 1), classes=4, highest=98))["logits"].square().mean().backward()
    trained = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    idle = {name for name, gradient in trained.items() if gradient is None or not gradient.any()}
    assert idle == trained.keys() & set(model.unused_parameters())
    assert idle
    assert any(name.startswith("clip.transformer") for name in trained) == (options is CLIP_2024)


def test_feature_width_must_be_that_of_clip(small_clip):
    with pytest.raises(ValueError, match="feature_width must be the 20 of small-clip, got 24"):
        CATSeg(
            CATSegConfig(**{**CLIP_2024, "feature_width": 24, "text_guidance": (24, 8), "appearance_guidance": (24, 8)})
        )


def test_what_was_trained_elsewhere_is_named(small_clip, tmp_path):
    import open_clip

    file = tmp_path / "clip.pt"
    torch.save(open_clip.create_model("small-clip").state_dict(), file)
    (part,) = CATSeg(CATSegConfig(**{**CLIP_2024, "clip_weights": str(file)})).pretrained_parts()
    assert (part["name"], part["source"], part["frozen"], len(part["sha256"])) == ("small-clip", "clip.pt", False, 64)
    assert CATSeg(CATSegConfig(**CLIP_2024)).pretrained_parts() == []
    with pytest.raises(ValueError, match="got null"):
        CATSeg(CATSegConfig(**{**CLIP_2024, "clip_weights": None}))
