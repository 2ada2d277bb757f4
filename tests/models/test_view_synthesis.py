"""What both view-synthesis architectures must hold."""

import copy
import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from baselines import lvsm
from models import efficient_lvsm
from tests.models.helpers import meta_batch, random_batch, randomise
from tests.models.oracle import Oracle

MODULES = {"lvsm-decoder-only": lvsm, "efficient-lvsm": efficient_lvsm}
CLASSES = {"lvsm-decoder-only": lvsm.LVSMDecoderOnly, "efficient-lvsm": efficient_lvsm.EfficientLVSM}
REFERENCE_NAMES = {"lvsm-decoder-only": "image_tokenizer.1.weight", "efficient-lvsm": "rgbp_tokenizer.1.weight"}
SMALL = {"width": 64, "head_dim": 32, "layers": 2, "patch_size": 8}


@pytest.fixture(params=sorted(CLASSES))
def name(request):
    return request.param


@pytest.fixture
def cls(name):
    return CLASSES[name]


def build(cls, **options):
    return randomise(cls(cls.config_class(**{**SMALL, **options})))


def oracle_images(model, batch, **options):
    config = model.config
    oracle = Oracle(
        dict(model.named_parameters()),
        layers=config.layers,
        head_dim=config.head_dim,
        patch_size=config.patch_size,
        **options,
    )
    return oracle.decoder_only(batch) if isinstance(model, lvsm.LVSMDecoderOnly) else oracle.dual_stream(batch)


def gradients(model, images):
    model.zero_grad()
    images.square().mean().backward()
    return {key: parameter.grad.clone() for key, parameter in model.named_parameters()}


def assert_same_gradients(first, second, rtol):
    for key in first:
        difference = (first[key] - second[key]).norm()
        assert difference <= rtol * second[key].norm() + 1e-9, key


# --- the mathematics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast_attention", [False, True])
@pytest.mark.parametrize(("input_views", "target_views", "size"), [(1, 1, (16, 16)), (3, 2, (16, 24))])
def test_equals_the_plain_implementation(cls, input_views, target_views, size, fast_attention):
    model = build(cls)
    batch = random_batch(2, input_views, target_views, size)
    ours = model(**batch)["images"]
    plain = oracle_images(model, batch, fast_attention=fast_attention)
    torch.testing.assert_close(ours, plain, atol=2e-6, rtol=0)
    assert_same_gradients(gradients(model, ours), gradients(model, plain), rtol=1e-4)


def test_images_have_the_size_of_the_inputs_and_lie_in_0_to_1(cls):
    images = build(cls)(**random_batch(2, 3, 4, (16, 32)))["images"]
    assert images.shape == (2, 4, 3, 16, 32)
    assert images.dtype == torch.float32
    assert images.min() > 0
    assert images.max() < 1
    assert images.std() > 0.01


def test_every_weight_gets_a_gradient(cls):
    model = build(cls)
    assert model.unused_parameters() == frozenset()
    assert all(gradient.norm() > 0 for gradient in gradients(model, model(**random_batch())["images"]).values())


# --- what depends on what ------------------------------------------------------------------------------------------


def test_the_order_of_input_views_does_not_matter(cls):
    model, batch = build(cls), random_batch(2, 4, 2)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = {key: value[:, order] if key.startswith("input") else value for key, value in batch.items()}
    torch.testing.assert_close(model(**shuffled)["images"], model(**batch)["images"], atol=1e-6, rtol=0)


def test_every_input_view_matters(cls):
    model, batch = build(cls), random_batch(1, 3, 1)
    before = model(**batch)["images"]
    for view in range(3):
        changed = {**batch, "input_images": batch["input_images"].clone()}
        changed["input_images"][:, view] = 1 - changed["input_images"][:, view]
        assert (model(**changed)["images"] - before).abs().max() > 1e-4


def test_targets_do_not_see_one_another(cls):
    model, batch = build(cls), random_batch(2, 2, 3)
    together = model(**batch)["images"]
    for view in range(3):
        one = {key: value[:, view : view + 1] if key.startswith("target") else value for key, value in batch.items()}
        torch.testing.assert_close(model(**one)["images"][:, 0], together[:, view], atol=1e-6, rtol=0)


def test_scenes_do_not_see_one_another(cls):
    model, batch = build(cls), random_batch(3)
    together = model(**batch)["images"]
    alone = model(**{key: value[1:2] for key, value in batch.items()})["images"]
    torch.testing.assert_close(alone[0], together[1], atol=1e-6, rtol=0)


def test_target_pictures_cannot_be_passed(cls):
    with pytest.raises(TypeError):
        build(cls)(**random_batch(), target_images=torch.zeros(2, 2, 3, 16, 16))


def test_inputs_do_not_depend_on_targets_in_the_dual_stream():
    model = build(efficient_lvsm.EfficientLVSM)
    seen = []
    for block in model.input_self_attn_blocks:
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
    batch, other = random_batch(seed=0), random_batch(target_views=5, seed=1)
    model(**batch)
    model(**{key: other[key] if key.startswith("target") else batch[key] for key in batch})
    layers = len(seen) // 2
    assert layers == SMALL["layers"]
    assert all(torch.equal(first, second) for first, second in zip(seen[:layers], seen[layers:], strict=True))


# --- precision and memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}])
def test_bf16_autocast_is_finite_and_close(cls, options):
    model, batch = build(cls, **options), random_batch()
    exact = model(**batch)["images"]
    with torch.autocast("cpu", torch.bfloat16):
        images = model(**batch)["images"]
    assert images.dtype == torch.float32
    # Random weights of this size make it sensitive: the bound only tells rounding from a wrong computation.
    assert (images - exact).abs().mean() < 0.02
    assert all(gradient.isfinite().all() for gradient in gradients(model, images).values())


def test_tokens_are_made_in_fp32_under_autocast(cls, name):
    model, batch = build(cls), random_batch()
    tokenizer = model.get_submodule(REFERENCE_NAMES[name].removesuffix(".1.weight"))
    seen = []
    for module in (tokenizer, model.target_pose_tokenizer):
        module.register_forward_hook(lambda _module, inputs, output: seen.append((inputs[0], output)))
    model(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch)
    for (pixels, tokens), (autocast_pixels, autocast_tokens) in zip(seen[:2], seen[2:], strict=True):
        assert torch.equal(pixels, autocast_pixels)
        assert torch.equal(tokens, autocast_tokens)


def test_checkpointing_changes_nothing_but_what_is_kept(cls):
    plain, checkpointed = build(cls), build(cls, gradient_checkpointing=True)
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


@pytest.mark.parametrize(("scenes", "input_views", "target_views"), [(1, 2, 1), (3, 2, 6), (2, 8, 6)])
@pytest.mark.parametrize("size", [(64, 64), (48, 32)])
def test_flops_equal_the_counter_to_the_digit(cls, scenes, input_views, target_views, size):
    with torch.device("meta"):
        model = cls(cls.config_class(width=128, head_dim=64, layers=3, patch_size=8))
    batch = meta_batch(scenes, input_views, target_views, size)
    with FlopCounterMode(display=False) as counter:
        model(**batch)
    assert model.flops(batch) == counter.get_total_flops()


def test_presets(name, cls):
    presets = MODULES[name].PRESETS
    assert set(presets) == {"tiny", "small", "paper"}
    assert presets["paper"] == cls.config_class()
    assert (presets["tiny"].width, presets["tiny"].layers, presets["tiny"].patch_size) == (128, 4, 8)


# --- state dicts ---------------------------------------------------------------------------------------------------


def test_state_dict_round_trip(cls):
    first, second = build(cls), cls(cls.config_class(**SMALL))
    second.load_state_dict(first.state_dict())
    batch = random_batch()
    assert torch.equal(first(**batch)["images"], second(**batch)["images"])


def wrap_none(state):
    return state


def wrap_compiled(state):
    return {f"_orig_mod.{key}": value for key, value in state.items()}


def wrap_twice(state):
    return {f"module._orig_mod.{key}": value for key, value in state.items()}


def wrap_block(state):
    return {key.replace("blocks.1.", "blocks.1._orig_mod."): value for key, value in state.items()}


def wrap_file(state):
    extras = {
        "loss_computer.perceptual_loss_module.vgg.features.0.weight": torch.zeros(3),
        "module.repa_projector.input.8.2.0.bias": torch.zeros(3),
        "repa_encoder.pos_embed": torch.zeros(3),
    }
    return {"model": {**state, **extras}, "optimizer": {"state": {}}, "fwdbwd_pass_step": 7}


@pytest.mark.parametrize("wrap", [wrap_none, wrap_compiled, wrap_twice, wrap_block, wrap_file])
def test_from_reference_takes_what_the_published_code_saves(cls, wrap):
    model = build(cls)
    loaded = cls.from_reference(wrap(model.state_dict()), **SMALL)
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
def test_from_reference_names_what_does_not_fit(cls, name, spoil, message):
    key = REFERENCE_NAMES[name]
    with pytest.raises(ValueError, match=message.format(key=key)):
        cls.from_reference(spoil(build(cls).state_dict(), key), **SMALL)


def test_from_reference_names_an_unknown_option(cls):
    with pytest.raises(ValueError, match="unknown option 'registers'"):
        cls.from_reference({}, **SMALL, registers=4)


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"layers": 2.0}, r"layers must be an integer >= 1, got 2\.0"),
        ({"patch_size": True}, "patch_size must be an integer >= 1, got True"),
        ({"width": 100}, "width must be a multiple of head_dim 32, got 100: try 96"),
        ({"gradient_checkpointing": "yes"}, "gradient_checkpointing must be true or false, got 'yes'"),
    ],
)
def test_configurations_are_checked(cls, change, message):
    with pytest.raises(ValueError, match=message):
        cls.config_class(**{**SMALL, **change})


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
    ],
)
def test_shapes_that_do_not_fit_are_named(cls, field, change, message):
    batch = random_batch()
    with pytest.raises(ValueError, match=message):
        build(cls)(**{**batch, field: change(batch[field])})


def test_can_be_copied(cls):
    model, batch = build(cls), random_batch()
    assert torch.equal(copy.deepcopy(model)(**batch)["images"], model(**batch)["images"])
