"""What every masked autoencoder of images and every variant of it must hold."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baselines import mae
from bench.engine.flops import triangulate
from models import crossmae
from models.layers.mask_counts import MaskCounts
from models.layers.masked_vit import SIZES, MaskedViTConfig, draw_mask
from models.layers.patches import patchify
from models.layers.sincos import sincos_grid
from tests.models.helpers import randomise
from tests.models.masked_images import SMALL, VARIANTS, Plain, build, meta_batch, on_meta, random_batch

ENCODER = ("cls_token", "pos_embed", "patch_embed.", "blocks.", "norm.")


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture(params=["mae", "crossmae default", "crossmae plain"])
def family(request):
    return request.param


def gradients(model, batch, outputs):
    model.zero_grad()
    model.reference_loss(batch, outputs).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def is_hidden(model, noise):
    """[B, L] bool: not among the patches that the encoder may see."""
    return noise.argsort(dim=1).argsort(dim=1) >= model.config.counts.kept


# --- the mathematics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predict_all", [False, True])
def test_equals_the_plain_implementation(variant, predict_all):
    model = build(variant)
    batch = random_batch(model.config)
    ours, plain = model(**batch, predict_all=predict_all), Plain(model)(**batch, predict_all=predict_all)
    assert torch.equal(ours["mask"], plain["mask"])
    torch.testing.assert_close(ours["prediction"], plain["prediction"], atol=1e-5, rtol=1e-5)
    first, second = gradients(model, batch, ours), gradients(model, batch, plain)
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        # The weight of a single map has next to no gradient: the norm behind it takes its scale away.
        assert (gradient - second[name]).norm() <= 1e-4 * second[name].norm() + 1e-7, name


def test_loss_is_the_sum_over_hidden_patches_by_their_number(variant):
    model = build(variant)
    batch = random_batch(model.config, images=3)
    outputs = model(**batch)
    expected = []
    for target, prediction, mask in zip(
        patchify(batch["images"], 4), outputs["prediction"], outputs["mask"].bool(), strict=True
    ):
        rows = iter(prediction[mask] if len(prediction) == len(target) else prediction)
        for patch in target[mask]:
            if model.config.norm_pix_loss:
                centred = patch - patch.mean()
                patch = centred / (centred.square().sum() / (len(patch) - 1) + 1e-6).sqrt()
            expected.append((next(rows) - patch).square().mean())
    torch.testing.assert_close(model.reference_loss(batch, outputs), torch.stack(expected).mean())


def test_every_weight_gets_a_gradient_but_tables_and_those_declared_unused(variant):
    model = build(variant)
    batch = random_batch(model.config)
    reached = {name for name, value in gradients(model, batch, model(**batch)).items() if value.any()}
    tables = {"pos_embed", "decoder_pos_embed"}
    assert set(dict(model.named_parameters())) - reached - tables == model.unused_parameters()
    assert {name for name, weight in model.named_parameters() if not weight.requires_grad} == tables


@pytest.mark.slow
def test_all_counters_agree_to_the_flop_without_a_value(variant):
    cls, own = VARIANTS[variant]
    config = cls.config_class(**{**SMALL, **own})
    report = triangulate(lambda: cls(config), meta_batch(config, 2), ["images", "noise"], require_closed_form=True)
    assert report.device == "meta"  # nothing depends on data, so nothing waits for a device either
    assert len(set(report.counters.values())) == 1, report.counters
    model = on_meta(cls, **{**SMALL, **own})
    batch = meta_batch(config, 3)
    assert model.flops(batch) == 3 * report.forward_per_sample == model.encode_flops(batch) + model.decode_flops(batch)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mae", "crossmae default"])
def test_compiles_in_one_piece(name):
    model = build(name)
    batch = random_batch(model.config)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**batch)["prediction"], model(**batch)["prediction"])


# --- masking -------------------------------------------------------------------------------------------------------


@given(
    data=st.data(),
    patches=st.integers(2, 30),
    values=st.integers(1, 40),
)
def test_a_mask_has_the_same_counts_in_every_row(data, patches, values):
    kept = data.draw(st.integers(1, patches - 1))
    ignored = data.draw(st.integers(0, patches - kept - 1))
    noise = torch.randint(values, (3, patches), generator=torch.Generator().manual_seed(patches)) / values
    masking = draw_mask(noise, MaskCounts(kept, ignored, patches - kept - ignored))
    for row in range(3):
        ranks = sorted(range(patches), key=lambda patch: (noise[row, patch], patch))  # ties go by position
        assert masking.kept[row].tolist() == ranks[:kept]
        assert masking.predicted[row].tolist() == sorted(ranks[kept + ignored :])
        assert masking.mask[row].nonzero().flatten().tolist() == masking.predicted[row].tolist()


def test_hidden_patches_are_not_seen_and_visible_ones_are(variant):
    model = build(variant)
    batch = random_batch(model.config)
    hidden = is_hidden(model, batch["noise"])
    pixels = hidden.unflatten(1, (5, 5)).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    before = model(**batch)["prediction"]
    unseen = model(torch.where(pixels, 7.0, batch["images"]), batch["noise"])["prediction"]
    seen = model(torch.where(pixels, batch["images"], 7.0), batch["noise"])["prediction"]
    assert torch.equal(unseen, before)
    assert (seen - before).abs().max() > 1e-3


def test_images_do_not_read_one_another(variant):
    model = build(variant)
    batch = random_batch(model.config, images=3)
    together = model(**batch)["prediction"]
    for index in range(3):
        alone = model(**{name: value[index : index + 1] for name, value in batch.items()})["prediction"]
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": (2, 3, 20, 16)}, r"images must be \[B, 3, 20, 20\], got \[2, 3, 20, 16\]"),
        ({"images": (2, 4, 20, 20)}, r"images must be \[B, 3, 20, 20\]"),
        ({"noise": (2, 24)}, r"noise must be \[2, 25\], got \[2, 24\]"),
        ({"noise": (1, 25)}, r"noise must be \[2, 25\], got \[1, 25\]"),
    ],
)
def test_inputs_of_another_size_are_refused(family, change, message):
    model = build(family)
    batch = random_batch(model.config) | {name: torch.zeros(shape) for name, shape in change.items()}
    with pytest.raises(ValueError, match=message):
        model(**batch)


# --- precision, features, initial weights --------------------------------------------------------------------------


def test_bfloat16_is_close_and_ends_in_fp32(variant):
    model = build(variant)
    batch = random_batch(model.config)
    exact = model(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(**batch)
        loss = model.reference_loss(batch, rounded)
    assert rounded["prediction"].dtype == rounded["mask"].dtype == loss.dtype == torch.float32
    error = (rounded["prediction"] - exact["prediction"]).norm() / exact["prediction"].norm()
    assert 0 < error < 0.05
    loss.backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)


def test_features_describe_the_whole_image(variant):
    model = build(variant)
    images = random_batch(model.config)["images"]
    features = model.features(images)
    assert features.shape == (2, 24)
    assert features.dtype == torch.float32
    for patch in range(25):
        row, column = 4 * (patch // 5), 4 * (patch % 5)
        changed = images.clone()
        changed[:, :, row : row + 4, column : column + 4] += 1
        assert (model.features(changed) - features).abs().amax(1).min() > 1e-4
    tokens = model.encode(images)[-1]
    if model.norm is None:
        tokens = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    else:
        tokens = model.norm(tokens)
    torch.testing.assert_close(features, tokens[:, 1:].mean(1))


def test_initial_weights_are_as_published(family):
    torch.manual_seed(0)
    cls, own = VARIANTS[family]
    model = cls(cls.config_class(**{**SMALL, **own, "width": 96, "decoder_width": 64}))
    bound = (6 / (96 + 48)) ** 0.5  # xavier of the patch embedding as a matrix [96, 48]
    kernel = model.patch_embed.proj.weight
    assert 0.98 * bound < kernel.abs().max() <= bound
    assert model.patch_embed.proj.bias.any()  # left at torch's default
    for token in (model.cls_token, model.mask_token):
        assert token.std().item() == pytest.approx(0.02, rel=0.25)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            bound = (6 / sum(module.weight.shape)) ** 0.5
            assert 0.8 * bound < module.weight.abs().max() <= bound, name
            assert module.bias is None or not module.bias.any(), name
        elif isinstance(module, torch.nn.LayerNorm):
            assert (module.weight == 1).all(), name
            assert not module.bias.any(), name
    for table, width in ((model.pos_embed, 96), (model.decoder_pos_embed, 64)):
        assert not table[0, 0].any()
        assert torch.equal(table[0, 1:], sincos_grid(5, 5, width))


# --- checkpoints ---------------------------------------------------------------------------------------------------


def options(model):
    return dataclasses.asdict(model.config)


def encoder_of(model):
    return {name: value for name, value in model.state_dict().items() if name.startswith(ENCODER)}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 799},
        lambda state: {"model": {f"module._orig_mod.{name}": value for name, value in state.items()}},
    ],
)
def test_a_full_checkpoint_loads(variant, wrap):
    model = build(variant)
    state = model.state_dict()
    loaded = type(model).from_reference(wrap(state), **options(model))
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("decoder_pred.bias"), "missing key 'decoder_pred.bias'"),
        (lambda state: state.pop("pos_embed"), "missing key 'pos_embed'"),
        (lambda state: state.update(head=torch.zeros(1)), "unexpected key 'head'"),
        (
            lambda state: state.update(pos_embed=torch.zeros(1, 17, 24)),
            r"key 'pos_embed' must be \[1, 26, 24\], got \[1, 17, 24\]",
        ),
        (
            lambda state: state.update({"blocks.3.norm1.weight": torch.zeros(24)}),
            r"unexpected key 'blocks.3.norm1.weight'",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(family, change, message):
    model = build(family)
    state = model.state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        type(model).from_reference(state, **options(model))


def test_an_encoder_alone_loads_only_if_asked_for(family):
    model = build(family)
    encoder = encoder_of(model)
    torch.manual_seed(0)
    loaded = type(model).from_reference({"model": encoder}, encoder_only=True, **options(model))
    torch.manual_seed(0)
    fresh = type(model)(model.config).state_dict()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, encoder.get(name, fresh[name])), name
    with pytest.raises(ValueError, match=r"encoder alone .*'mask_token'.* missing.*: load it with encoder_only=True"):
        type(model).from_reference(encoder, **options(model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update(mask_token=torch.zeros(1, 1, 16)), "more than an encoder .'mask_token'.: load a"),
        (lambda state: state.update(head=torch.zeros(1)), "more than an encoder .'head'."),
        (lambda state: state.pop("cls_token"), "missing key 'cls_token'"),
        (lambda state: state.update({"blocks.3.x": torch.zeros(1)}), "unexpected key 'blocks.3.x'"),
        (lambda state: state.update(pos_embed=torch.zeros(1, 197, 24)), "key 'pos_embed' must be"),
        (lambda state: state.clear(), "missing key"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(family, change, message):
    model = build(family)
    encoder = encoder_of(model)
    change(encoder)
    with pytest.raises(ValueError, match=message):
        type(model).from_reference(encoder, encoder_only=True, **options(model))


@pytest.mark.parametrize("target", ["mae", "crossmae default", "crossmae plain"])
@pytest.mark.parametrize("source", ["mae", "crossmae default", "crossmae plain"])
def test_encoders_pass_between_the_architectures(source, target):
    encoder, model = encoder_of(build(source)), build(target)
    if source == "crossmae default" and target != source:
        with pytest.raises(ValueError, match=r"missing key 'norm.weight'; missing key 'norm.bias'"):
            type(model).from_reference(encoder, encoder_only=True, **options(model))
        return
    loaded = type(model).from_reference(encoder, encoder_only=True, **options(model)).state_dict()
    unused = {name for name in encoder if name not in loaded}
    assert unused == ({"norm.weight", "norm.bias"} if target == "crossmae default" != source else set())
    assert all(torch.equal(loaded[name], encoder[name]) for name in encoder.keys() - unused)


# --- configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 18}, "image_size must be a multiple of patch_size 4, got 18: try 16"),
        ({"heads": 5}, "width must be a multiple of 4 and of its 5 heads, got 24: try 20"),
        ({"decoder_heads": 3}, "decoder_width must be a multiple of 4 and of its 3 heads, got 16: try 12"),
        ({"width": 22, "heads": 2}, "width must be a multiple of 4 and of its 2 heads, got 22: try 20"),
        ({"width": 2, "heads": 6}, "width must be a multiple of 4 and of its 6 heads, got 2: try 12"),
        ({"decoder_layers": 0}, "decoder_layers must be an integer >= 1, got 0"),
        ({"norm_pix_loss": 1}, "norm_pix_loss must be true or false, got 1"),
        ({"mask_ratio": 0.99}, "mask_ratio 0.99 keeps none of 25 tokens"),
        ({"mask_ratio": 0}, "mask_ratio must be a number between 0 and 1, got 0"),
    ],
)
def test_options_that_cannot_be_are_refused(family, change, message):
    cls, own = VARIANTS[family]
    with pytest.raises(ValueError, match=message):
        cls.config_class(**{**SMALL, **own, **change})


@given(name=st.sampled_from(["", "decoder_"]), width=st.integers(1, 100), heads=st.integers(1, 12))
def test_a_width_is_taken_or_another_one_named_that_is(name, width, heads):
    def config(width):
        return MaskedViTConfig(**{**SMALL, f"{name}width": width, f"{name}heads": heads})

    if width % 4 == 0 and width % heads == 0:
        config(width)
        return
    with pytest.raises(ValueError, match=f"^{name}width must be a multiple of 4 and of its {heads} heads") as raised:
        config(width)
    config(int(str(raised.value).rpartition("try ")[2]))


@pytest.mark.parametrize("size", SIZES)
def test_every_size_divides_as_published(family, size):
    cls, _ = VARIANTS[family]
    config = cls.config_class(**SIZES[size])
    assert config.patches == (256 if size == "H/14" else 196)
    assert config.width // config.heads == (80 if size == "H/14" else 64)
    assert config.decoder_width // config.decoder_heads == 32


@pytest.mark.parametrize(
    ("preset", "sizes"),
    [
        ("tiny", (64, 8, 96, 6, 4, 64, 4)),
        ("small", (128, 8, 384, 12, 6, 256, 8)),
        ("paper", (224, 16, 768, 12, 12, 512, 16)),
    ],
)
def test_presets_are_alike_but_for_the_decoders_depth(preset, sizes):
    names = ("image_size", "patch_size", "width", "layers", "heads", "decoder_width", "decoder_heads")
    for presets, depth in ((mae.PRESETS, (4, 8, 8)), (crossmae.PRESETS, (6, 12, 12))):
        config = presets[preset]
        assert tuple(getattr(config, name) for name in names) == sizes
        assert config.decoder_layers == depth[list(presets).index(preset)]
        assert config == type(config)(**dict(zip(names, sizes, strict=True)), decoder_layers=config.decoder_layers)


def test_random_weights_survive_a_round_trip_through_the_state_dict(variant):
    model = build(variant)
    batch = random_batch(model.config)
    other = randomise(type(model)(model.config), seed=1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(**batch)["prediction"], model(**batch)["prediction"])
