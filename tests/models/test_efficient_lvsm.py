import copy
import math

import pytest
import torch

from models import efficient_lvsm
from models.efficient_lvsm import PRESETS, EfficientLVSM, EfficientLVSMConfig
from models.layers.view_mask import drop_views
from tests.models.helpers import VARIANTS, build, meta_batch, random_batch, select


def paper_model():
    with torch.device("meta"):
        return EfficientLVSM(PRESETS["paper"])


def test_published_size():
    assert sum(parameter.numel() for parameter in paper_model().parameters()) == 199_070_208


@pytest.mark.parametrize(
    ("input_views", "target_views", "tera"),
    [(2, 1, 0.80), (2, 6, 2.40), (4, 8, 4.15), (8, 8, 6.34), (16, 8, 10.8), (32, 8, 19.6)],
)
def test_published_flops(input_views, target_views, tera):
    flops = paper_model().flops(meta_batch(1, input_views, target_views, (256, 256)))
    # The published table counts the tokenisers in some cells and not in others, which is worth up to 0.4 %.
    assert flops / 1e12 == pytest.approx(tera, rel=0.004, abs=0.006)


def test_norms_have_no_weights():
    assert not [
        key for key in paper_model().state_dict() if "norm" in key and "q_norm" not in key and "k_norm" not in key
    ]


def test_target_stream_starts_depth_scaled_and_input_stream_at_torchs_default():
    torch.manual_seed(0)
    model = EfficientLVSM(EfficientLVSMConfig(width=256, layers=3))
    for index, block in enumerate(model.self_cross_blocks):
        weights = [m.weight for m in block.modules() if isinstance(m, torch.nn.Linear)]
        assert len(weights) == 7
        for weight in weights:
            assert weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * (index + 1)), rel=0.03)
            assert weight.abs().max() > 3.5 * weight.std()  # normal, not uniform
    for block in model.input_self_attn_blocks:
        for weight in (m.weight for m in block.modules() if isinstance(m, torch.nn.Linear)):
            bound = 1 / math.sqrt(weight.shape[1])
            assert weight.abs().max().item() <= bound
            assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    for layer in (model.rgbp_tokenizer[1], model.target_pose_tokenizer[1], model.image_token_decoder[1]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)


# --- variants ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "million", "giga"),
    [
        ({}, 1.98, 1.149),
        ({"input_update": "encode-first"}, 1.98, 1.149),
        ({"input_update": "ffn"}, 1.72, 0.981),
        # The original pairs each target view with one input view by mistake (0.679): reading both adds 4 P^2 d four times
        # in each of the four layers.
        ({"input_update": "none"}, 1.20, 0.679 + 4 * 4 * 4 * 64**2 * 128 / 1e9),
        ({"target_block": "cross"}, 1.72, 0.981),
        ({"extra_encoder_layers": 2}, 2.38, 1.367),
        ({"registers": 4}, 1.99, 1.225),
        ({"input_rgb": False}, 1.96, 1.137),
    ],
)
def test_sizes_and_flops_of_the_original_variants(options, million, giga):
    with torch.device("meta"):
        model = EfficientLVSM(EfficientLVSMConfig(width=128, layers=4, **options))
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(million, abs=0.006)
    assert model.flops(meta_batch(2, 2, 2, (64, 64))) / 1e9 == pytest.approx(giga, abs=0.0006)


def test_extra_encoder_blocks_start_depth_scaled():
    torch.manual_seed(0)
    model = EfficientLVSM(EfficientLVSMConfig(width=256, layers=1, extra_encoder_layers=2))
    for index, block in enumerate(model.extra_enc):
        for weight in (m.weight for m in block.modules() if isinstance(m, torch.nn.Linear)):
            assert weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * (index + 1)), rel=0.03)


def test_shared_streams_have_one_set_of_weights():
    own, shared = build("efficient-lvsm").state_dict(), build("efficient-lvsm shared").state_dict()
    assert {key for key in own if not key.startswith("input_self_attn_blocks.")} == set(shared)


def test_hooks_see_the_input_stream_of_shared_weights():
    model, seen = build("efficient-lvsm shared"), []
    for block in model.input_self_attn_blocks:
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    twin = copy.deepcopy(model)
    model(**random_batch(2, 3, 1))
    assert [tuple(tokens.shape) for tokens in seen] == [(6, 4, 64)] * 2
    assert twin.input_self_attn_blocks[1].block is twin.self_cross_blocks[1]


def test_log_scale_changes_nothing_at_the_number_of_views_trained_with():
    plain, scaled = build("efficient-lvsm"), build("efficient-lvsm", log_scale="fixed", train_input_views=3)
    for views, same in ((3, True), (2, False), (4, False)):
        batch = random_batch(2, views, 1)
        difference = (plain(**batch)["images"] - scaled(**batch)["images"]).abs().max()
        assert (difference < 1e-6) == same


def test_a_learned_log_scale_starts_at_the_number_of_views_trained_with():
    model = EfficientLVSM(EfficientLVSMConfig(width=64, layers=2, log_scale="learned", train_input_views=4))
    for block in model.self_cross_blocks:
        assert block.cross_attn.log_scale.item() == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_update": "often"}, "input_update must be one of per-layer, encode-first, ffn, none, got 'often'"),
        ({"registers": -1}, "registers must be an integer >= 0, got -1"),
        ({"train_input_views": 0}, "train_input_views must be an integer >= 1, got 0"),
        ({"shared_weights": True, "input_update": "ffn"}, "shared_weights needs .* got 'ffn' and 'self-cross'"),
        ({"shared_weights": True, "target_block": "cross"}, "shared_weights needs .* got 'per-layer' and 'cross'"),
        ({"input_scope": "global", "view_masking": "individual"}, "view_masking 'individual' does not go with"),
        ({"input_scope": "global", "input_update": "none"}, "input_scope 'global' needs attention .* 'none' lacks"),
        ({"encoder": "dinov2-b14"}, "encoder must be a mapping of options or null, got 'dinov2-b14'"),
        ({"align_input": 1}, "align_input must be true or false, got 1"),
        ({"align_input": True}, "align_input needs an encoder whose patches lie on the tokens, got none: set encoder"),
        ({"align_input": True, "encoder": {"name": "alexnet"}}, "got 'alexnet' with resize 'image': .*dinov2-b14"),
        (
            {"align_input": True, "encoder": {"name": "dinov2-b14", "resize": "features"}},
            "got 'dinov2-b14' with resize 'features': .* and resize: image",
        ),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        EfficientLVSMConfig(**options)


# --- view masking --------------------------------------------------------------------------------------------------

MASKED = ["efficient-lvsm", "efficient-lvsm cross", "efficient-lvsm shared", "efficient-lvsm extra encoder"]


@pytest.mark.parametrize(
    ("variant", "masking"),
    [*((name, "individual") for name in MASKED), *((name, "unified") for name in [*MASKED, "efficient-lvsm global"])],
)
def test_a_hidden_view_is_as_if_it_were_not_there(variant, masking, monkeypatch):
    drawn = []

    def watch(*args):
        drawn.append(drop_views(*args))
        return drawn[-1]

    monkeypatch.setattr(efficient_lvsm, "drop_views", watch)
    model = build(variant, view_masking=masking)
    batch = random_batch(3, 4, 2)
    torch.manual_seed(1)
    images = model(**batch)["images"]
    (visible,) = drawn
    visible = visible[:, None].expand(-1, 2, -1) if masking == "unified" else visible
    assert not visible.all()
    model.eval()
    for scene in range(3):
        one = {key: value[scene : scene + 1] for key, value in batch.items()}
        for target in range(2):
            alone = model(**select(select(one, "input", visible[scene, target]), "target", [target]))["images"]
            torch.testing.assert_close(alone[0, 0], images[scene, target], atol=2e-6, rtol=0)


@pytest.mark.parametrize("masking", ["unified", "individual"])
def test_nothing_is_hidden_outside_training(masking):
    batch = random_batch(3, 4, 2)
    model = build("efficient-lvsm", view_masking=masking).eval()
    assert torch.equal(model(**batch)["images"], build("efficient-lvsm")(**batch)["images"])


# --- the cache -----------------------------------------------------------------------------------------------------

LOCAL = [name for name in VARIANTS if name.startswith("efficient-lvsm") and "global" not in name]


def encode(model, batch, index=slice(None), **options):
    part = select(batch, "input", index)
    return model.encode(part["input_images"], part["input_c2w"], part["input_intrinsics"], **options)


def render(model, scene, batch):
    return model.render(scene, batch["target_c2w"], batch["target_intrinsics"])["images"]


@pytest.mark.parametrize("variant", LOCAL)
def test_views_can_be_added_one_by_one(variant):
    model, batch = build(variant).eval(), random_batch(2, 3, 2)
    assert model.incremental
    with torch.no_grad():
        joint = model(**batch)["images"]
        cache = encode(model, batch, [0]).append(encode(model, batch, [1])).append(encode(model, batch, [2]))
        assert cache.num_views == 3
        torch.testing.assert_close(render(model, cache, batch), joint, atol=1e-6, rtol=0)


@pytest.mark.parametrize("variant", LOCAL)
@pytest.mark.parametrize("view", [0, 1, 2])
def test_a_removed_view_was_never_there(variant, view):
    model, batch = build(variant).eval(), random_batch(2, 3, 2)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    rest = [index for index in range(3) if index != view]
    with torch.no_grad():
        cache = encode(model, batch, input_mask=mask)
        before = render(model, cache, batch)
        left = cache.remove(view)
        never = model(**select(batch, "input", rest), input_mask=mask[:, rest])["images"]
        torch.testing.assert_close(render(model, left, batch), never, atol=1e-6, rtol=0)
        assert torch.equal(render(model, cache, batch), before)


def test_masked_and_complete_caches_can_be_joined():
    model, batch = build("efficient-lvsm").eval(), random_batch(2, 3, 2)
    mask = torch.tensor([[False], [True]])
    joint = model(**batch, input_mask=torch.cat([mask, torch.ones(2, 2, dtype=torch.bool)], dim=1))["images"]
    cache = encode(model, batch, [0], input_mask=mask).append(encode(model, batch, [1, 2]))
    torch.testing.assert_close(render(model, cache, batch), joint, atol=1e-6, rtol=0)


def test_what_a_cache_takes():
    cache = encode(build("efficient-lvsm"), random_batch(2, 3, 1))
    assert cache.num_bytes == 2 * 3 * 2 * (2 * 4 * 64) * 4  # scenes, views, layers, keys and values of 4 tokens
    assert sum(t.untyped_storage().nbytes() for t in (*cache.keys, *cache.values)) == cache.num_bytes


def test_paper_cache_has_the_published_size():
    cache = encode(paper_model(), meta_batch(1, 1, 1, (256, 256)))
    assert cache.num_bytes / 2 / 1e6 == pytest.approx(37.7, abs=0.1)  # published for bf16; this one is in fp32


def test_a_model_with_global_scope_says_that_views_cannot_come_and_go():
    model, batch = build("efficient-lvsm global"), random_batch(2, 2, 1)
    assert not model.incremental
    cache = encode(model, batch)
    with pytest.raises(ValueError, match="cannot append: with input_scope 'global'"):
        cache.append(cache)
    with pytest.raises(ValueError, match="cannot remove: with input_scope 'global'"):
        cache.remove(0)


@pytest.mark.parametrize(
    ("variant", "options", "scenes", "size", "message"),
    [
        ("efficient-lvsm", {}, 3, (16, 16), "different scenes, 2 and 3"),
        ("efficient-lvsm", {}, 2, (16, 24), r"different image sizes, \(16, 16\) and \(16, 24\)"),
        ("efficient-lvsm", {"layers": 3}, 2, (16, 16), "different layers, 2 and 3"),
        ("efficient-lvsm", {"head_dim": 16}, 2, (16, 16), r"different heads, \(2, 32\) and \(4, 16\)"),
        ("efficient-lvsm extra encoder", {}, 2, (16, 16), "different tokens a view, 4 and 6"),
        ("efficient-lvsm global encode-first", {}, 2, (16, 16), "different incremental, True and False"),
    ],
)
def test_caches_that_do_not_belong_together_are_refused(variant, options, scenes, size, message):
    first = encode(build("efficient-lvsm"), random_batch(2))
    with pytest.raises(ValueError, match=message):
        first.append(encode(build(variant, **options), random_batch(scenes, size=size)))


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (2, "view must be in 0..1, got 2"),
        (-1, "in 0..1, got -1"),
        (True, "in 0..1, got True"),
        (1.0, r"in 0..1, got 1\.0"),
    ],
)
def test_views_that_are_not_there_cannot_be_removed(view, message):
    with pytest.raises(ValueError, match=message):
        encode(build("efficient-lvsm"), random_batch(2)).remove(view)


def test_the_last_view_cannot_be_removed():
    with pytest.raises(ValueError, match="view 0 is the only one"):
        encode(build("efficient-lvsm"), random_batch(2, 1)).remove(0)


def test_the_last_view_of_one_scene_cannot_be_removed():
    mask = torch.tensor([[True, True], [False, True]])
    cache = encode(build("efficient-lvsm"), random_batch(2), input_mask=mask)
    with pytest.raises(ValueError, match="without view 1 scene 1 has none left"):
        cache.remove(1)
    assert cache.remove(0).view_mask.all()


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("efficient-lvsm", {"layers": 3}),
        ("efficient-lvsm", {"head_dim": 16}),
        ("efficient-lvsm", {"width": 96}),
        ("efficient-lvsm extra encoder", {}),
    ],
)
def test_a_cache_of_another_model_is_refused(variant, options):
    batch = random_batch(2)
    cache = encode(build("efficient-lvsm"), batch)
    with pytest.raises(ValueError, match="render with the model that encoded it"):
        render(build(variant, **options), cache, batch)
