"""What every view-synthesis architecture and every variant of it must hold."""

import copy
import dataclasses
import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from baselines import lvsm, lvsm_encoder_decoder
from models import efficient_lvsm
from tests.models.helpers import SMALL, VARIANTS, build, meta_batch, random_batch, select
from tests.models.oracle import Oracle

FAMILIES = {
    "lvsm-decoder-only": lvsm,
    "lvsm-encoder-decoder": lvsm_encoder_decoder,
    "efficient-lvsm": efficient_lvsm,
}
TOKENIZERS = {
    lvsm.LVSMDecoderOnly: "image_tokenizer",
    lvsm_encoder_decoder.LVSMEncoderDecoder: "image_tokenizer",
    efficient_lvsm.EfficientLVSM: "rgbp_tokenizer",
}
ORACLES = {
    lvsm.LVSMDecoderOnly: Oracle.decoder_only,
    lvsm_encoder_decoder.LVSMEncoderDecoder: Oracle.encoder_decoder,
    efficient_lvsm.EfficientLVSM: Oracle.dual_stream,
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def cls(family):
    return VARIANTS[family][0]


@pytest.fixture
def options(family):
    return {**SMALL, **VARIANTS[family][1]}


def oracle_images(model, batch, **options):
    oracle = Oracle(dict(model.named_parameters()), **dataclasses.asdict(model.config), **options)
    return ORACLES[type(model)](oracle, batch)


def gradients(model, images):
    model.zero_grad()
    images.square().mean().backward()
    return {key: weight.grad.clone() for key, weight in model.named_parameters() if weight.grad is not None}


def assert_same_gradients(first, second, rtol):
    assert first.keys() == second.keys()
    for key in first:
        difference = (first[key] - second[key]).norm()
        assert difference <= rtol * second[key].norm() + 1e-9, key


# --- the mathematics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("input_views", "target_views", "size", "fast_attention"), [(1, 1, (16, 16), True), (3, 2, (16, 24), False)]
)
def test_equals_the_plain_implementation(variant, input_views, target_views, size, fast_attention):
    model = build(variant)
    batch = random_batch(2, input_views, target_views, size)
    ours = model(**batch)["images"]
    plain = oracle_images(model, batch, fast_attention=fast_attention)
    torch.testing.assert_close(ours, plain, atol=2e-6, rtol=0)
    assert_same_gradients(gradients(model, ours), gradients(model, plain), rtol=1e-4)


def test_images_have_the_size_of_the_inputs_and_lie_in_0_to_1(variant):
    images = build(variant)(**random_batch(2, 3, 4, (16, 32)))["images"]
    assert images.shape == (2, 4, 3, 16, 32)
    assert images.dtype == torch.float32
    assert images.min() > 0
    assert images.max() < 1
    assert images.std() > 0.01


def test_every_weight_gets_a_gradient_but_those_declared_unused(variant):
    model = build(variant)
    reached = {key for key, gradient in gradients(model, model(**random_batch())["images"]).items() if gradient.any()}
    assert model.unused_parameters() == set(dict(model.named_parameters())) - reached


# --- what depends on what ------------------------------------------------------------------------------------------


def test_the_order_of_input_views_does_not_matter(variant):
    model, batch = build(variant), random_batch(2, 4, 2)
    shuffled = select(batch, "input", torch.tensor([2, 0, 3, 1]))
    torch.testing.assert_close(model(**shuffled)["images"], model(**batch)["images"], atol=1e-6, rtol=0)


def test_every_input_view_matters(variant):
    model, batch = build(variant), random_batch(1, 3, 1)
    before = model(**batch)["images"]
    for view in range(3):
        field = "input_images" if getattr(model.config, "input_rgb", True) else "input_c2w"
        changed = {**batch, field: batch[field].clone()}
        changed[field][:, view] = 1 - changed[field][:, view]
        assert (model(**changed)["images"] - before).abs().max() > 1e-4


def test_targets_do_not_see_one_another(variant):
    model, batch = build(variant), random_batch(2, 2, 3)
    together = model(**batch)["images"]
    for view in range(3):
        one = select(batch, "target", [view])
        torch.testing.assert_close(model(**one)["images"][:, 0], together[:, view], atol=1e-6, rtol=0)


def test_scenes_do_not_see_one_another(variant):
    model, batch = build(variant), random_batch(3)
    together = model(**batch)["images"]
    alone = model(**{key: value[1:2] for key, value in batch.items()})["images"]
    torch.testing.assert_close(alone[0], together[1], atol=1e-6, rtol=0)


def test_target_pictures_cannot_be_passed(family):
    with pytest.raises(TypeError):
        build(family)(**random_batch(), target_images=torch.zeros(2, 2, 3, 16, 16))


def test_inputs_do_not_depend_on_targets_in_the_dual_stream():
    model = build("efficient-lvsm")
    seen = []
    for block in model.input_self_attn_blocks:
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
    batch, other = random_batch(seed=0), random_batch(target_views=5, seed=1)
    model(**batch)
    model(**{key: other[key] if key.startswith("target") else batch[key] for key in batch})
    layers = len(seen) // 2
    assert layers == model.config.layers
    assert all(torch.equal(first, second) for first, second in zip(seen[:layers], seen[layers:], strict=True))


# --- views that are not there ----------------------------------------------------------------------------------------


def test_a_masked_view_is_as_if_it_were_not_there(variant):
    model, batch = build(variant, gradient_checkpointing=True), random_batch(3, 4, 2)
    mask = torch.tensor([[True, False, True, True], [False, False, True, False], [True, True, True, True]])
    batch["input_images"][~mask] = 1e3
    for name in ("input_c2w", "input_intrinsics"):
        batch[name][~mask] = 0  # padding, and no camera
    images = model(**batch, input_mask=mask)["images"]
    for scene, present in enumerate(mask):
        alone = select({key: value[scene : scene + 1] for key, value in batch.items()}, "input", present)
        torch.testing.assert_close(model(**alone)["images"][0], images[scene], atol=2e-6, rtol=0)


def test_a_mask_that_hides_nothing_changes_nothing(variant):
    model, batch = build(variant), random_batch(2, 3, 2)
    masked = model(**batch, input_mask=torch.ones(2, 3, dtype=torch.bool))["images"]
    torch.testing.assert_close(masked, model(**batch)["images"], atol=2e-6, rtol=0)


def test_without_a_mask_attention_is_called_without_one(variant, monkeypatch):
    masks, attend = [], torch.nn.functional.scaled_dot_product_attention

    def watch(*args, attn_mask=None, **kwargs):
        masks.append(attn_mask)
        return attend(*args, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watch)
    build(variant)(**random_batch())
    assert masks
    assert all(mask is None for mask in masks)


# --- a scene as a value ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_rendering_an_encoded_scene_is_the_forward(variant, masked):
    model, batch = build(variant).eval(), random_batch(2, 3, 4)
    inputs = {key: value for key, value in batch.items() if key.startswith("input")}
    if masked:
        inputs["input_mask"] = torch.tensor([[True, False, True], [True, True, False]])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        joint = model(**{**batch, **inputs})["images"]
        scene = model.encode(**inputs)
        for targets in ([0, 1], [2], [3]):
            one = select(batch, "target", targets)
            images = model.render(scene, one["target_c2w"], one["target_intrinsics"])["images"]
            torch.testing.assert_close(images, joint[:, targets], atol=1e-6, rtol=0)
    assert model.state_dict().keys() == before.keys()
    with pytest.raises(dataclasses.FrozenInstanceError):
        scene.image_size = (8, 8)


def test_targets_of_other_scenes_are_refused(family):
    model, batch = build(family), random_batch(2)
    scene = model.encode(**{key: value for key, value in batch.items() if key.startswith("input")})
    with pytest.raises(ValueError, match=r"target_c2w must be \[2, V, 4, 4\]"):
        model.render(scene, batch["target_c2w"][:1], batch["target_intrinsics"][:1])


@pytest.mark.slow
@pytest.mark.parametrize("variant", [*FAMILIES, "efficient-lvsm shared global"])
def test_compiles_into_one_graph(variant):
    torch.compiler.reset()
    model, batch = build(variant), random_batch()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**batch)["images"], model(**batch)["images"], atol=1e-6, rtol=0)


# --- precision and memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "checkpointing"), [*((name, False) for name in VARIANTS), *((name, True) for name in FAMILIES)]
)
def test_bf16_autocast_is_finite_and_close(variant, checkpointing):
    model, batch = build(variant, gradient_checkpointing=checkpointing), random_batch()
    exact = model(**batch)["images"]
    with torch.autocast("cpu", torch.bfloat16):
        images = model(**batch)["images"]
    assert images.dtype == torch.float32
    # Random weights of this size make it sensitive: the bound only tells rounding from a wrong computation.
    assert (images - exact).abs().mean() < 0.02
    assert all(gradient.isfinite().all() for gradient in gradients(model, images).values())


def test_tokens_are_made_in_fp32_under_autocast(family):
    model, batch = build(family), random_batch()
    tokenizer = model.get_submodule(TOKENIZERS[type(model)])
    seen = []
    for module in (tokenizer, model.target_pose_tokenizer):
        module.register_forward_hook(lambda _module, inputs, output: seen.append((inputs[0], output)))
    model(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch)
    for (pixels, tokens), (autocast_pixels, autocast_tokens) in zip(seen[:2], seen[2:], strict=True):
        assert torch.equal(pixels, autocast_pixels)
        assert torch.equal(tokens, autocast_tokens)


def test_checkpointing_changes_nothing_but_what_is_kept(variant):
    plain, checkpointed = build(variant), build(variant, gradient_checkpointing=True)
    batch = random_batch()
    kept = []

    def measure(model):
        count = 0

        def pack(tensor):
            nonlocal count
            count += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            images = model(**batch)["images"]
        kept.append(count)
        return images, gradients(model, images)

    (images, grads), (other_images, other_grads) = measure(plain), measure(checkpointed)
    assert torch.equal(images, other_images)
    assert_same_gradients(other_grads, grads, rtol=1e-6)
    assert kept[1] < kept[0] / 2


# --- counting ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("scenes", "input_views", "target_views", "size"), [(1, 1, 2, (64, 64)), (3, 8, 6, (48, 32))])
def test_flops_equal_the_counter_to_the_digit(variant, scenes, input_views, target_views, size):
    with torch.device("meta"):
        model = build(variant, width=96)
    batch = meta_batch(scenes, input_views, target_views, size)

    def count(call, *args, **inputs):
        with FlopCounterMode(display=False) as counter:
            result = call(*args, **inputs)
        return counter.get_total_flops(), result

    encoding, scene = count(model.encode, **{key: value for key, value in batch.items() if key.startswith("input")})
    rendering, _ = count(model.render, scene, batch["target_c2w"], batch["target_intrinsics"])
    total, _ = count(model, **batch)
    assert (model.encode_flops(batch), model.render_flops(batch), model.flops(batch)) == (encoding, rendering, total)


def test_presets(family, cls):
    presets = FAMILIES[family].PRESETS
    assert set(presets) == {"tiny", "small", "paper"}
    assert presets["paper"] == cls.config_class()
    assert (presets["tiny"].width, presets["tiny"].patch_size) == (128, 8)


# --- state dicts ---------------------------------------------------------------------------------------------------


def wrap_none(state):
    return state


def wrap_compiled(state):
    return {f"_orig_mod.{key}": value for key, value in state.items()}


def wrap_twice(state):
    return {f"module._orig_mod.{key}": value for key, value in state.items()}


def wrap_block(state):
    return {re.sub(r"^(\w+\.1\.)(?!weight)", r"\1_orig_mod.", key): value for key, value in state.items()}


def wrap_file(state):
    extras = {
        "loss_computer.perceptual_loss_module.vgg.features.0.weight": torch.zeros(3),
        "module.repa_projector.input.8.2.0.bias": torch.zeros(3),
        "repa_encoder.pos_embed": torch.zeros(3),
    }
    return {"model": {**state, **extras}, "optimizer": {"state": {}}, "fwdbwd_pass_step": 7}


def test_from_reference_takes_its_own_state(variant):
    model = build(variant)
    loaded = type(model).from_reference(model.state_dict(), **dataclasses.asdict(model.config))
    batch = random_batch()
    assert torch.equal(model(**batch)["images"], loaded(**batch)["images"])


@pytest.mark.parametrize("wrap", [wrap_none, wrap_compiled, wrap_twice, wrap_block, wrap_file])
def test_from_reference_takes_what_the_published_code_saves(family, wrap):
    model = build(family)
    loaded = type(model).from_reference(wrap(model.state_dict()), **dataclasses.asdict(model.config))
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())


def drop(state, key):
    return {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state, key: drop(state, key), r"missing key '{key}'"),
        (lambda state, key: {**state, "head.bias": torch.zeros(1)}, r"unexpected key 'head.bias'"),
        (lambda state, key: {**state, "repa_projectors.x": torch.zeros(1)}, r"unexpected key 'repa_projectors.x'"),
        (lambda state, key: {**state, key: torch.zeros(3, 5)}, r"key '{key}' must be \[64, 576\], got \[3, 5\]"),
        (lambda state, key: {**state, f"module.{key}": state[key]}, r"'module.{key}'\] is there twice"),
        (lambda state, key: {**state, "step": 7}, r"'step'\] must be a tensor, got int"),
    ],
)
def test_from_reference_names_what_does_not_fit(family, cls, options, spoil, message):
    key = f"{TOKENIZERS[cls]}.1.weight"
    with pytest.raises(ValueError, match=message.format(key=key)):
        cls.from_reference(spoil(build(family).state_dict(), key), **options)


def test_from_reference_names_an_unknown_option(cls, options):
    with pytest.raises(ValueError, match="unknown option 'depth'"):
        cls.from_reference({}, **options, depth=4)


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"head_dim": 2.0}, r"head_dim must be an integer >= 1, got 2\.0"),
        ({"patch_size": True}, "patch_size must be an integer >= 1, got True"),
        ({"width": 100}, "width must be a multiple of head_dim 32, got 100: try 96"),
        ({"gradient_checkpointing": "yes"}, "gradient_checkpointing must be true or false, got 'yes'"),
    ],
)
def test_configurations_are_checked(cls, options, change, message):
    with pytest.raises(ValueError, match=message):
        cls.config_class(**{**options, **change})


def test_configurations_are_frozen(cls):
    with pytest.raises(dataclasses.FrozenInstanceError):
        cls.config_class().width = 3


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("input_images", lambda x: x[..., :12], "multiples of patch_size 8, got 16 x 12"),
        ("input_images", lambda x: x[:, :, :2], "input_images must be"),
        ("input_images", lambda x: x[:, :1], "input_images has 1 views, input_c2w 2"),
        ("input_c2w", lambda x: x[..., :3, :], "input_c2w must be"),
        ("input_intrinsics", lambda x: x[..., :3], "input_intrinsics must be"),
        ("target_c2w", lambda x: x[:1], "target_c2w must be"),
        ("target_intrinsics", lambda x: x[:, :1], "target_intrinsics must be"),
        ("input_mask", lambda x: x[:, :1], r"input_mask must be bool \[2, 2\], got torch.bool \[2, 1\]"),
        ("input_mask", lambda x: x.float(), r"input_mask must be bool \[2, 2\], got torch.float32 \[2, 2\]"),
    ],
)
def test_shapes_that_do_not_fit_are_named(family, field, change, message):
    batch = {**random_batch(), "input_mask": torch.ones(2, 2, dtype=torch.bool)}
    with pytest.raises(ValueError, match=message):
        build(family)(**{**batch, field: change(batch[field])})


def test_can_be_copied(variant):
    model, batch = build(variant), random_batch()
    assert torch.equal(copy.deepcopy(model)(**batch)["images"], model(**batch)["images"])
