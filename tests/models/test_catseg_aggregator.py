import re
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from bench.engine.flops import triangulate
from bench.interop import check_parity, load_parity_fixture
from models.catseg_aggregator import OTHER_SUBTREES, PREFIX, PRESETS, CATSegAggregator, CATSegAggregatorConfig
from models.layers.class_attention import ClassAttention
from tests.models.catseg_oracle import AggregatorOracle
from tests.models.helpers import randomise

SMALL = CATSegAggregatorConfig(
    feature_width=8,
    hidden_width=16,
    layers=1,
    heads=2,
    resolution=(4, 4),
    window_size=2,
    text_guidance=(8, 4),
    appearance_guidance=(6, 4),
    decoder_guidance=((5, 3), (4, 2)),
    decoder_widths=(16, 16),
    class_padding=None,
)
V1 = CATSegAggregatorConfig(
    version="2023", prompts=80, appearance_guidance=(512, 128), class_padding=None, test_pooling_size=(1, 1)
)
V2 = PRESETS["paper"]

INPUTS = ("image_features", "text_features", "guidance_0", "guidance_1", "guidance_2")
WINDOWS = [((4, 4), 2), ((4, 4), 4), ((2, 6), 5), ((6, 6), 3), ((6, 3), 3)]
"""Legal grids and windows: with and without a shift, and smaller than a window."""


@st.composite
def configs(draw):
    """Every option with every other."""
    resolution, window_size = draw(st.sampled_from(WINDOWS))
    pooling = st.sampled_from([(1, 1), (2, 2), (2, 1)])
    padding = draw(st.none() | st.integers(1, 7))
    return replace(
        SMALL,
        hidden_width=draw(st.sampled_from([16, 20])),
        heads=draw(st.sampled_from([1, 2])),
        attention=draw(st.sampled_from(["linear", "full"])),
        volume=draw(st.sampled_from(["cost", "feature"])),
        prompts=draw(st.integers(1, 3)),
        spatial=draw(st.sampled_from(["swin", "swin", "conv", "none"])),
        classwise=draw(st.sampled_from([True, True, False])),
        resolution=resolution,
        window_size=window_size,
        pooling_size=draw(pooling),
        test_pooling_size=draw(st.none() | pooling),
        text_guidance=draw(st.sampled_from([(8, 4), (8, 0)])),
        appearance_guidance=draw(st.sampled_from([(6, 4), (0, 0)])),
        decoder_guidance=draw(st.sampled_from([((5, 3), (4, 2)), ((5, 3), (4, 0)), ((0, 0), (0, 0))])),
        decoder=draw(st.sampled_from([True, True, False])),
        decoder_widths=draw(st.sampled_from([(16, 16), (34, 16)])),
        class_padding=padding,
        fold_padding=padding is not None and draw(st.booleans()),
        class_chunk=draw(st.none() | st.integers(1, 4)),
    )


def build(config):
    """A model in evaluation mode with weights that all matter; what the classes' text does is lost in the rest otherwise."""
    model = randomise(CATSegAggregator(config)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name == "text_guidance_projection.0.weight" or name.endswith("attention.attention.v.weight"):
                weight *= 8
            elif name.endswith(("attention.attention.q.weight", "attention.attention.k.weight")):
                weight[:, config.hidden_width :] *= 8
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model


def random_batch(config, classes, samples=2, grid=None, seed=0):
    """The input fields, those of guidances that are switched off among them."""
    generator = torch.Generator().manual_seed(seed)
    height, width = grid or config.grid
    shapes = [(samples, config.feature_width, height, width), (samples, classes, config.prompts, config.feature_width)]
    for number, channels in enumerate([config.appearance_guidance[0], *config.decoder_guidance[0]]):
        shapes.append((samples, max(1, channels), height << number, width << number))
    return {name: torch.randn(shape, generator=generator) for name, shape in zip(INPUTS, shapes, strict=True)}


def oracle(model):
    return AggregatorOracle(dict(model.named_parameters()) | dict(model.named_buffers()), model.config)


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5 * max(1.0, theirs.abs().max().item()), rtol=0)


# --- the published implementation ----------------------------------------------------------------------------------


@pytest.mark.shared
def test_parity_with_the_shared_fixtures(shared_dir):
    paths = sorted((shared_dir / "parity").rglob("catseg-*.safetensors"))
    paths = [path for path in paths if load_parity_fixture(path).architecture == "catseg-aggregator"]
    assert paths
    for path in paths:
        report = check_parity(path, {"catseg-aggregator": CATSegAggregator}.__getitem__)
        assert report.passed, report.lines()
        assert len(report.deviations) > 40


@pytest.mark.parametrize(
    ("config", "classes", "training", "million", "published", "executed"),
    [
        (V1, 171, True, 2.837, 538.5, 480.7),
        (replace(V1, attention="full"), 171, True, 2.837, 542.0, 484.2),
        (V1, 150, False, 2.837, 529.9, 470.8),
        (replace(V1, attention="full"), 847, False, 2.837, 3392.7, 3057.4),
        (replace(V1, appearance_guidance=(0, 0)), 150, False, 2.115, 506.6, 469.9),
        (replace(V1, appearance_guidance=(0, 0), text_guidance=(0, 0)), 150, False, 1.951, 495.2, 469.9),
        (
            replace(V1, appearance_guidance=(0, 0), text_guidance=(0, 0), decoder_guidance=((0, 0), (0, 0))),
            150,
            False,
            1.880,
            500.2,
            500.2,
        ),
        # 1,664 of the published FLOPs convolve the same image and the same text again and again.
        (replace(V1, volume="feature"), 150, False, 11.969, 2097.3, 381.5),
        (V2, 150, False, 2.637, 488.2, 421.1),
        (replace(V2, attention="full"), 150, False, 2.637, 521.9, 454.8),
        (V2, 20, False, 2.637, 179.7, 154.3),
        (replace(V2, fold_padding=True), 20, False, 2.637, 179.7, 52.2),
        (replace(V2, class_padding=None), 20, False, 2.636, 59.4, 51.8),
        (V2, 847, False, 2.637, 740.4, 639.1),
        (replace(V2, class_padding=None), 847, False, 2.636, 2443.4, 2108.2),
    ],
)
def test_published_sizes_and_costs(config, classes, training, million, published, executed):
    with torch.device("meta"):
        model = CATSegAggregator(config).train(training)
        batch = {
            "image_features": torch.empty(1, 768, 24, 24),
            "text_features": torch.empty(1, classes, config.prompts, 768),
        }
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(million, abs=5e-4)
    assert model.published_flops(batch) / 1e9 == pytest.approx(published, abs=0.051)
    assert model.flops(batch) / 1e9 == pytest.approx(executed, abs=0.051)


def test_published_layouts():
    assert len(CATSegAggregator(replace(SMALL, layers=2)).state_dict()) == 126
    assert len(CATSegAggregator(replace(SMALL, layers=2, class_padding=9)).state_dict()) == 130


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"model": {f"module.{PREFIX}{name}": value for name, value in s.items()}},
        lambda s: (
            {PREFIX + name: value for name, value in s.items()}
            | {f"{other}x.weight": torch.zeros(1) for other in OTHER_SUBTREES}
        ),
    ],
)
def test_published_weights_load_from_the_whole_network(wrap):
    model = build(SMALL)
    loaded = CATSegAggregator.from_reference(wrap(model.state_dict()), **asdict(SMALL)).eval()
    batch = random_batch(SMALL, 3)
    assert torch.equal(loaded(**batch)["logits"], model(**batch)["logits"])


MASK = "layers.0.swin_block.block_2.attn_mask"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("head.bias"), "missing key 'head.bias'"),
        (lambda s: s.pop(MASK), f"missing key '{MASK}'"),
        (lambda s: s.update({MASK: s[MASK] / 2}), "attn_mask'] is not the mask of windows of 2"),
        (
            lambda s: s.update({"layers.0.swin_block.block_1.attn_mask": s[MASK]}),
            "unexpected key 'layers.0.swin_block.b",
        ),
        (lambda s: s.update({"criterion.weight": torch.zeros(1)}), "unexpected key 'criterion.weight'"),
        (lambda s: s.update({"conv1.weight": torch.zeros(16, 2, 7, 7)}), "'conv1.weight' must be"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, message):
    state = CATSegAggregator(SMALL).state_dict()
    change(state)
    with pytest.raises(ValueError, match=re.escape(message)):
        CATSegAggregator.from_reference(state, **asdict(SMALL))


# --- against the oracle --------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=30)
@given(configs(), st.integers(1, 9), st.integers(1, 2), st.booleans())
def test_every_variant_is_what_the_description_says(config, classes, lists, training):
    """Values, in both modes; order of classes; one list of classes for both samples; FLOPs."""
    training = training and config.spatial != "conv"  # whose batch norms then read the batch
    model, batch = build(config).train(training), random_batch(config, classes)
    text = batch["text_features"] = batch["text_features"][:lists]
    with torch.no_grad():
        expected = oracle(model)(*batch.values(), training=training)
        assert_close(model(**batch)["logits"], expected)
        order = torch.randperm(classes)
        changed = {**batch, "text_features": text[:, order].expand(2, -1, -1, -1)}
        assert_close(model(**changed)["logits"], expected[:, order])
    on_meta, batch = model.to("meta"), {name: value.to("meta") for name, value in batch.items()}
    with FlopCounterMode(display=False) as counter:
        on_meta(**batch)
    assert counter.get_total_flops() == on_meta.flops(batch)


@pytest.mark.parametrize("attention", ["linear", "full"])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda queries, keys: (0 * queries, 0 * keys),
        lambda queries, keys: (queries, 2 * keys),
        lambda queries, keys: (keys, queries),
        lambda queries, keys: (queries.roll(1, 1), keys),
    ],
    ids=["dropped", "doubled", "exchanged", "of another class"],
)
def test_the_comparison_sees_wrong_guidance_of_the_classes(wrong, attention, monkeypatch):
    model, batch = build(replace(SMALL, attention=attention)), random_batch(SMALL, 5)
    guide = ClassAttention.guide
    monkeypatch.setattr(ClassAttention, "guide", lambda self, text: wrong(*guide(self, text)))
    expected = oracle(model)(*batch.values())
    assert (model(**batch)["logits"] - expected).abs().max() > 1e-3 * expected.abs().max(), "100 times what is allowed"


@pytest.mark.parametrize(
    "options",
    [
        {"class_padding": 7, "prompts": 2},
        {"class_padding": 7, "fold_padding": True, "attention": "full", "layers": 2},
        {"volume": "feature", "attention": "full", "class_padding": 3},
        {"spatial": "conv"},
    ],
)
def test_gradients_are_those_of_the_oracle_and_reach_all_weights(options):
    config = replace(SMALL, **options)
    model, batch = build(config), random_batch(config, 4)
    batch["labels"] = torch.randint(-1, 5, (2, 13, 11))
    runs = (model(**{name: batch[name] for name in INPUTS}), {"logits": oracle(model)(*(batch[n] for n in INPUTS))})
    grads = [
        torch.autograd.grad(model.reference_loss(batch, outputs), [*model.parameters()], allow_unused=True)
        for outputs in runs
    ]
    largest = max(grad.abs().max() for grad in grads[1] if grad is not None)
    for (name, _), ours, theirs in zip(model.named_parameters(), *grads, strict=True):
        if "padding" in name and config.class_padding <= 4:
            assert theirs is None
            assert not ours.any()
            continue
        torch.testing.assert_close(ours, theirs, atol=1e-6 * largest, rtol=1e-4)
        # A softmax does not see what is added to all of its logits.
        blind = name.endswith("attn.k.bias") or (config.attention == "full" and name.endswith("k.bias"))
        assert blind or ours.any(), name


def test_counters_agree():
    config = replace(SMALL, volume="feature", class_padding=6, attention="full")
    batch = random_batch(config, 4)
    report = triangulate(lambda: CATSegAggregator(config), batch, INPUTS, require_closed_form=True)
    assert report.counters["torch"] == report.counters["closed_form"]


# --- classes -------------------------------------------------------------------------------------------------------


def test_both_attentions_have_the_same_weights():
    linear, full = build(replace(SMALL, class_padding=6)), build(replace(SMALL, class_padding=6, attention="full"))
    full.load_state_dict(linear.state_dict())
    batch = random_batch(SMALL, 4)
    assert (linear(**batch)["logits"] - full(**batch)["logits"]).abs().max() > 1e-3


@pytest.mark.parametrize("attention", ["linear", "full"])
def test_folded_fillers_have_the_same_values(attention):
    config = replace(SMALL, attention=attention, class_padding=40)
    batch = random_batch(SMALL, 4)
    plain, folded = build(config), build(replace(config, fold_padding=True))
    assert_close(folded(**batch)["logits"], plain(**batch)["logits"])
    assert folded.flops(batch) < plain.flops(batch)
    assert not torch.allclose(build(replace(config, class_padding=None))(**batch)["logits"], plain(**batch)["logits"])


def test_classes_that_fit_worst_are_dropped():
    config = replace(SMALL, class_padding=3, prompts=2)
    model, batch = build(config), random_batch(config, 5)
    # Class 3 is at one place of the first sample exactly, in its second prompt.
    batch["text_features"][0, 3, 1] = 5 * batch["image_features"][0, :, 2, 1]
    logits = model(**batch)["logits"]
    dropped = (logits == -100).flatten(2).all(-1)
    assert dropped.sum(1).tolist() == [2, 2]
    assert not dropped[0, 3]


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize(
    ("options", "classes", "tokens"),
    [
        ({"volume": "feature"}, 9, 9),
        ({"attention": "full", "class_padding": 12}, 9, 12),
        ({"class_padding": 12, "fold_padding": True}, 9, 10),
        ({"class_padding": 9}, 9, 9),
        ({"class_padding": 6}, 6, 6),
    ],
    ids=["feature", "below the padding", "folded", "at the padding", "above the padding"],
)
def test_chunks_of_classes_give_the_same(options, classes, tokens, chunk):
    """Of 9 classes, as many as are computed, and with fillers."""
    config = replace(SMALL, pooling_size=(1, 1), **options)
    whole, parts = build(config), build(replace(config, class_chunk=chunk))
    batch, maps, mixed = random_batch(config, 9), [], []
    block = parts.layers[0]
    block.swin_block.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0].shape[1]))
    block.attention.MLP.register_forward_pre_hook(lambda _, inputs: mixed.append(inputs[0].shape[1:3]))
    with torch.no_grad():
        assert_close(parts(**batch)["logits"], whole(**batch)["logits"])
    assert max(maps) == chunk
    assert max(mixed) == (max(1, chunk * 16 // tokens), tokens), "no more tokens than so many maps have"
    maps.clear()
    parts.train()(**batch)
    assert maps[0] == classes, "training needs the whole for its gradients anyway"


# --- modes, grids, losses ------------------------------------------------------------------------------------------


def test_pooling_of_evaluation_may_be_another():
    batch = random_batch(SMALL, 3)
    plain, other = build(SMALL), build(replace(SMALL, test_pooling_size=(1, 1)))
    assert not torch.allclose(plain(**batch)["logits"], other(**batch)["logits"], atol=1e-3)
    assert torch.equal(plain.train()(**batch)["logits"], other.train()(**batch)["logits"])


@pytest.mark.parametrize(("grid", "window_size"), WINDOWS)
def test_a_model_runs_on_other_grids_like_one_made_for_them(grid, window_size):
    options = {"window_size": window_size, "pooling_size": (1, 1)}
    made = build(replace(SMALL, resolution=grid, **options))
    other = build(replace(SMALL, resolution=(12 * window_size,) * 2, **options))
    batch = random_batch(SMALL, 2, grid=grid)
    logits = other(**batch)["logits"]
    assert logits.shape == (2, 2, 4 * grid[0], 4 * grid[1])
    assert torch.equal(logits, made(**batch)["logits"])


def test_pixels_of_no_class_count_as_none_of_them():
    model = CATSegAggregator(SMALL)
    labels = torch.full((1, 3, 3), 65535)
    labels[0, 0, 0] = 1
    logits = torch.zeros(1, 2, 3, 3)
    assert model.reference_loss({"labels": labels}, {"logits": logits}).item() == pytest.approx(0.693147)
    logits[0, 1] = 1.0
    expected = (9 * 0.693147 + 8 * 1.313262 + 0.313262) / 18
    assert model.reference_loss({"labels": labels}, {"logits": logits}).item() == pytest.approx(expected)


@pytest.mark.parametrize("options", [{"class_padding": 6}, {"attention": "full", "spatial": "conv"}])
def test_bf16_is_finite(options):
    model = CATSegAggregator(replace(SMALL, **options))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(**random_batch(SMALL, 4))["logits"]
    logits.float().square().mean().backward()
    assert logits.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_presets_run():
    for preset in ("tiny", "small"):
        config = PRESETS[preset]
        assert CATSegAggregator(config)(**random_batch(config, 2, samples=1))["logits"].isfinite().all()


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "2025"}, "version must be one of 2023, 2024, got '2025'"),
        ({"version": "2023", "class_padding": 256}, "class_padding must be null with version 2023"),
        ({"hidden_width": 18, "heads": 4}, "hidden_width must be a multiple of its 4 heads, got 18: try 16"),
        ({"resolution": (4, 5)}, "the grid must be a multiple of its windows of 2 x 2, got 4 x 5"),
        ({"resolution": 4}, "resolution must hold two integers >= 1, got 4"),
        ({"pooling_size": (5, 1)}, r"pooling_size must be at most resolution \(4, 4\), got \(5, 1\)"),
        ({"text_guidance": (7, 4)}, "text_guidance must start with feature_width 8, got 7"),
        ({"appearance_guidance": (6, -1)}, r"appearance_guidance must hold two integers >= 0, got \(6, -1\)"),
        ({"decoder_guidance": ((5, 3),)}, "decoder_guidance must hold two pairs of widths"),
        ({"decoder_guidance": ((5, 3), (16, 2))}, "projected to less than the 16 channels"),
        ({"decoder_widths": (16, 8)}, "decoder_widths must hold widths of at least 16 .*, got 8: try 16"),
        ({"class_padding": -1}, "class_padding must be an integer >= 0, got -1"),
        ({"class_chunk": 0}, "class_chunk must be an integer >= 1, got 0"),
    ],
)
def test_options_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_features": torch.ones(2, 7, 4, 4)}, r"image_features must be \[B, 8, h, w\], got \[2, 7, 4, 4\]"),
        ({"image_features": torch.ones(2, 8, 4, 5)}, "the grid must be a multiple of its windows of 2 x 2, got 4 x 5"),
        ({"text_features": torch.ones(2, 3, 2, 8)}, r"must be \[2 or 1, T, 1, 8\], got \[2, 3, 2, 8\]"),
        ({"text_features": torch.ones(2, 0, 1, 8)}, r"must be \[2 or 1, T, 1, 8\], got \[2, 0, 1, 8\]"),
        ({"guidance_0": None}, r"guidance_0 must be \[2, 6, 4, 4\], got None"),
        ({"guidance_2": torch.ones(2, 3, 8, 8)}, r"guidance_2 must be \[2, 3, 16, 16\], got \[2, 3, 8, 8\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        CATSegAggregator(SMALL)(**{**random_batch(SMALL, 3), **change})
