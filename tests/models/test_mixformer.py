import dataclasses

import pytest
import torch

from bench.engine.flops import triangulate
from bench.interop import check_parity, load_parity_fixture
from models.layers.mixed_tracker import ATTENTIONS
from models.mixformer import CVT_W24, PRESETS, MixFormerCvT, MixFormerCvTConfig
from tests.models.helpers import randomise

SMALL = {
    "search_size": 48,
    "template_size": 32,
    "widths": (8, 12, 24),
    "layers": (1, 2, 2),
    "heads": (1, 3, 6),
    "head_width": 16,
}
CLASSES = {"mixformer-cvt": MixFormerCvT}
INPUTS = ("template", "online_template", "search")


def build(**options):
    """A small model in evaluation mode with weights that all matter."""
    return randomise(MixFormerCvT(MixFormerCvTConfig(**{**SMALL, **options}))).eval()


def random_batch(config, samples=2, online=None, seed=0):
    """The input fields of `tracking`, with several online templates where ``online`` says how many."""
    generator = torch.Generator().manual_seed(seed)
    edges = (config.template_size, config.template_size, config.search_size)
    shapes = [(samples, 3, edge, edge) for edge in edges]
    if online is not None:
        shapes[1] = (samples, online, *shapes[1][1:])
    return {name: torch.randn(shape, generator=generator) for name, shape in zip(INPUTS, shapes, strict=True)}


def million(parameters):
    return round(sum(parameter.numel() for parameter in parameters) / 1e6, 2)


# --- the published implementation ----------------------------------------------------------------------------------


@pytest.mark.shared
def test_parity_with_the_shared_fixtures(shared_dir):
    paths = sorted((shared_dir / "parity").rglob("mixformer-cvt*.safetensors"))
    assert paths
    for path in paths:
        report, norms = check_parity(path, CLASSES.__getitem__), load_parity_fixture(path).gradient_norms
        kinds = [deviation.kind for deviation in report.deviations]
        assert kinds.count("output") == 3
        assert kinds.count("gradient") == len(norms) > 100
        # A softmax does not see what is added to all of its scores, so the gradient of these biases is 0, and what both
        # sides have instead is rounding error.
        blind = ("attn.proj_k.bias", "box_head.conv5_tl.bias", "box_head.conv5_br.bias")
        for deviation in report.deviations:
            if deviation.kind == "gradient" and deviation.name.endswith(blind):
                assert max(deviation.difference, norms[deviation.name]) < 1e-7 * max(norms.values())
            else:
                assert deviation.passed, deviation


def reference_state(model):
    """The model's weights as published: with the two subtrees that nothing reads."""
    width = model.config.widths[-1]
    dead = {"head.weight": (1000, width), "head.bias": (1000,), "norm.weight": (width,), "norm.bias": (width,)}
    return model.state_dict() | {f"backbone.{name}": torch.full(shape, float("nan")) for name, shape in dead.items()}


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"net": s}, lambda s: {f"module.{k}": v for k, v in s.items()}]
)
def test_published_weights_load_whatever_the_batch_norms_do(wrap):
    model = build(freeze_batch_norm=False)
    batch = random_batch(model.config)
    for freeze in (True, False):
        loaded = MixFormerCvT.from_reference(wrap(reference_state(model)), **SMALL, freeze_batch_norm=freeze).eval()
        assert torch.equal(loaded(**batch)["boxes_cxcywh"], model(**batch)["boxes_cxcywh"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("box_head.conv3_br.1.running_var"), "missing key 'box_head.conv3_br.1.running_var'"),
        (lambda s: s.pop("backbone.stage1.blocks.1.attn.conv_proj_k.bn.bias"), "missing key 'backbone.stage1"),
        (lambda s: s.update({"backbone.norms.weight": torch.zeros(1)}), "unexpected key 'backbone.norms.weight'"),
        (lambda s: s.update({"backbone.norm.weightX": torch.zeros(1)}), "unexpected key 'backbone.norm.weightX'"),
        (lambda s: s.update({"backbone.head.0.bias": torch.zeros(1)}), "unexpected key 'backbone.head.0.bias'"),
        (lambda s: s.update({"backbone.cls_token": torch.zeros(1)}), "unexpected key 'backbone.cls_token'"),
        (
            lambda s: s.update({"backbone.stage2.cls_token": torch.zeros(1)}),
            "unexpected key 'backbone.stage2.cls_token'",
        ),
        (lambda s: s.update({"box_head.conv5_tl.bias": torch.zeros(2)}), r"'box_head.conv5_tl.bias' must be \[1\]"),
    ],
)
def test_only_the_dead_weights_are_dropped(change, message):
    state = reference_state(build())
    change(state)
    with pytest.raises(ValueError, match=message):
        MixFormerCvT.from_reference(state, **SMALL)


def test_published_sizes_and_costs():
    with torch.device("meta"):
        model, large = MixFormerCvT(PRESETS["paper"]), MixFormerCvT(MixFormerCvTConfig(**CVT_W24))
    assert million(model.parameters()) == 35.60
    assert [million(stage.parameters()) for stage in model.stages] == [0.06, 1.91, 29.22]
    assert million(model.box_head.parameters()) == 4.40
    assert million(large.parameters()) == 183.87  # 184.9 with the 1.03 of the classifier
    batch = {"online_template": torch.empty(1, 3, 128, 128), "search": torch.empty(1, 3, 320, 320)}
    assert model.flops(batch) / 1e9 == pytest.approx(46.4, abs=0.1)
    assert model.flops_templates() / 1e9 == pytest.approx(9.0, abs=0.05)
    # Published 37.8, with the keys and values of the templates projected again in every frame.
    assert model.flops_track() / 1e9 == pytest.approx(37.3, abs=0.05)
    assert large.flops(batch) / 1e9 == pytest.approx(256.6, abs=0.1)


# --- who reads whom ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_templates_read_the_search_picture_in_the_symmetric_design_alone(attention):
    model = build(attention=attention)
    batch, other = random_batch(model.config), random_batch(model.config, seed=1)
    plain = model(**batch)
    changed = model(**{**batch, "search": other["search"]})["template_features"]
    assert torch.equal(plain["template_features"], changed) == (attention == "asymmetric")
    online = model(**{**batch, "online_template": other["online_template"]})
    for name in plain:
        assert (online[name] - plain[name]).abs().max() > 1e-4, name


def test_shapes_of_the_outputs():
    outputs = build()(**random_batch(MixFormerCvTConfig(**SMALL)))
    assert {name: list(value.shape) for name, value in outputs.items()} == {
        "boxes_cxcywh": [2, 4],
        "template_features": [2, 24, 2, 2],
        "search_features": [2, 24, 3, 3],
    }


def test_only_the_first_template_is_returned():
    model, config = build(), MixFormerCvTConfig(**SMALL)
    batch = random_batch(config)
    swapped = model(batch["online_template"], batch["template"], batch["search"])
    straight = model(**batch)
    torch.testing.assert_close(swapped["boxes_cxcywh"], straight["boxes_cxcywh"])
    assert not torch.allclose(swapped["template_features"], straight["template_features"])


# --- templates kept over frames ------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("online", [None, 1, 3])
@pytest.mark.parametrize("sizes", [{}, {"search_size": 53, "template_size": 37}])
def test_kept_templates_equal_the_full_forward(attention, online, sizes):
    model = build(attention=attention, **sizes)
    batch = random_batch(model.config, online=online)
    with torch.inference_mode():
        cache = model.set_templates(batch["template"], batch["online_template"])
        for seed in range(2):
            search = random_batch(model.config, seed=seed)["search"]
            full = model(batch["template"], batch["online_template"], search)
            torch.testing.assert_close(model.track(search, cache), full["boxes_cxcywh"], atol=1e-6, rtol=0)
            for name, value in model.read(search, cache).items():
                torch.testing.assert_close(value, full[name], atol=1e-5, rtol=0)


def test_one_online_template_may_stand_alone_or_in_a_row():
    model = build()
    batch = random_batch(model.config)
    row = model(batch["template"], batch["online_template"][:, None], batch["search"])
    assert torch.equal(row["boxes_cxcywh"], model(**batch)["boxes_cxcywh"])


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("online", [1, 4])
def test_costs_of_kept_templates_are_as_counted(attention, online):
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = MixFormerCvT(MixFormerCvTConfig(**SMALL, attention=attention)).eval()
    batch = {name: value.to("meta") for name, value in random_batch(model.config, online=online).items()}
    with FlopCounterMode(display=False) as counter:
        cache = model.set_templates(batch["template"], batch["online_template"])
    assert counter.get_total_flops() == 2 * model.flops_templates(online)
    with FlopCounterMode(display=False) as counter:
        model.track(batch["search"], cache)
    assert counter.get_total_flops() == 2 * model.flops_track(online)
    assert model.flops_templates(online) + model.flops_track(online) == model.flops(batch) // 2


# --- sizes and counts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attention", "sizes"),
    [("asymmetric", (63, 31)), ("symmetric", (33, 3))],
)
def test_odd_sizes_run_and_their_flops_agree(attention, sizes):
    config = MixFormerCvTConfig(**{**SMALL, "search_size": sizes[0], "template_size": sizes[1]}, attention=attention)
    report = triangulate(lambda: MixFormerCvT(config), random_batch(config), INPUTS, require_closed_form=True)
    assert len(set(report.counters.values())) == 1


def test_coordinates_of_an_odd_search_picture_are_pixels_of_it():
    model = build(search_size=53)
    assert model.box_head.coordinates.tolist() == pytest.approx([0, 16 / 53, 32 / 53, 48 / 53])


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    config = PRESETS[name]
    with torch.device("meta"):
        outputs = MixFormerCvT(config)(**{k: v.to("meta") for k, v in random_batch(config, 1).items()})
    assert outputs["search_features"].shape[-1] == config.search_size // 16
    assert MixFormerCvTConfig(**dataclasses.asdict(config)) == config
    assert len({config, MixFormerCvTConfig(**dataclasses.asdict(config))}) == 1


# --- training ------------------------------------------------------------------------------------------------------


def train_once(model, batch):
    outputs = model.train()(**batch)
    generator = torch.Generator().manual_seed(0)
    loss = sum((value.float() * torch.randn(value.shape, generator=generator)).sum() for value in outputs.values())
    loss.backward()
    return loss


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("freeze", [True, False])
def test_gradients_reach_all_weights(attention, freeze):
    model = build(attention=attention, freeze_batch_norm=freeze)
    assert train_once(model, random_batch(model.config)).isfinite()
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert set(dict(model.named_parameters())) - set(weights) == {"box_head.conv5_tl.bias", "box_head.conv5_br.bias"}
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights.values())
    # Without gradient but for rounding are biases that a softmax or a batch norm takes away again.
    idle = {name for name, weight in weights.items() if not weight.grad.any()}
    assert all(name.endswith(("proj_k.bias", ".0.bias")) for name in idle)
    assert sum(".bn." in name for name in weights) == (0 if freeze else 5 * 3 * 2)


def test_frozen_batch_norms_stay_as_they_are_and_others_move():
    for freeze in (True, False):
        model = build(freeze_batch_norm=freeze)
        before = {name: value.clone() for name, value in model.state_dict().items() if "running_mean" in name}
        train_once(model, random_batch(model.config))
        after = model.state_dict()
        moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
        in_head = {name for name in before if name.startswith("box_head")}
        assert moved == (in_head if freeze else set(before))


def test_drop_path_grows_linearly_and_anew_in_each_stage():
    model = build(layers=(1, 3, 2), drop_path=(0.5, 0.2, 0.1))
    rates = [[block.drop_path.rate for block in stage.blocks] for stage in model.stages]
    assert rates == [[0.0], [0.0, pytest.approx(0.1), pytest.approx(0.2)], [0.0, pytest.approx(0.1)]]
    batch = random_batch(model.config, samples=8)
    assert torch.equal(model(**batch)["search_features"], model(**batch)["search_features"])
    model.train()
    assert not torch.equal(model(**batch)["search_features"], model(**batch)["search_features"])


@pytest.mark.parametrize("freeze", [True, False])
def test_bf16_is_finite_and_boxes_are_single_precision(freeze):
    model = build(freeze_batch_norm=freeze)
    with torch.autocast("cpu", torch.bfloat16):
        loss = train_once(model, random_batch(model.config))
        boxes = model.eval()(**random_batch(model.config))["boxes_cxcywh"]
    assert loss.isfinite()
    assert boxes.dtype == torch.float32
    assert boxes.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.requires_grad)


# --- scores --------------------------------------------------------------------------------------------------------


def test_scores_are_of_what_is_in_the_box():
    model = build(score_branch=True, search_size=80)
    batch = random_batch(model.config, samples=1)
    outputs = model(**batch)
    template, search = outputs["template_features"], outputs["search_features"].clone()
    box = torch.tensor([[0.3, 0.4, 0.2, 0.2]])  # cells 1 to 2 across, 1.5 to 2.5 down
    score = model.score(template, search, box)
    assert score.shape == (1,)
    search[..., 4:, :], search[..., 3:] = 0, 0
    assert torch.equal(model.score(template, search, box), score)
    search[..., 3, 1] = 0
    assert not torch.equal(model.score(template, search, box), score)
    assert not torch.equal(model.score(template + 1, search, box), model.score(template, search, box))


def test_the_score_branch_is_trained_on_its_own():
    model = build(score_branch=True)
    batch = random_batch(model.config)
    train_once(model, batch)
    names = {name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None}
    assert names == model.unused_parameters() == {name for name in names if name.startswith("score_branch.")}
    outputs = model(**batch)
    logits = model.score(outputs["template_features"], outputs["search_features"], torch.rand(2, 4))
    torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor([0.0, 1.0])).backward()
    assert all(model.get_parameter(name).grad.isfinite().all() for name in names)
    assert build().unused_parameters() == frozenset()


def test_score_weights_are_loaded_where_there_is_a_branch_and_dropped_where_not():
    state = reference_state(build(score_branch=True))
    batch = random_batch(MixFormerCvTConfig(**SMALL))
    boxes = [
        MixFormerCvT.from_reference(state, **SMALL, score_branch=branch).eval()(**batch)["boxes_cxcywh"]
        for branch in (True, False)
    ]
    assert torch.equal(*boxes)
    del state["score_branch.score_token"]
    with pytest.raises(ValueError, match=r"missing key 'score_branch.score_token'"):
        MixFormerCvT.from_reference(state, **SMALL, score_branch=True)
    with pytest.raises(ValueError, match="score_branch must be true for boxes to be scored, got False"):
        build().score(torch.zeros(1, 24, 2, 2), torch.zeros(1, 24, 3, 3), torch.zeros(1, 4))


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"search_size": 0}, "search_size must be an integer >= 1, got 0"),
        ({"template_size": 2}, "template_size must be at least 3 pixels, got 2"),
        ({"widths": (8, 16)}, r"widths must be a list of 3 numbers, one a stage, got \(8, 16\)"),
        ({"layers": (1, 0, 1)}, r"layers must hold integers >= 1, got \[1, 0, 1\]"),
        ({"heads": (1, 5, 6)}, "widths must be a multiple of its 5 heads, got 12: try 10"),
        ({"head_width": 20}, "head_width must be a multiple of 8, got 20: try 16"),
        ({"attention": "full"}, "attention must be one of asymmetric, symmetric, got 'full'"),
        ({"drop_path": (0, 0, 1.0)}, r"drop_path must hold numbers >= 0 and below 1, got \[0, 0, 1.0\]"),
        ({"freeze_batch_norm": 1}, "freeze_batch_norm must be true or false, got 1"),
    ],
)
def test_options_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        MixFormerCvTConfig(**{**SMALL, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda b: b.update(template=b["template"][:, :, :30]),
            r"template must be \[B, 3, 32, 32\], got \[2, 3, 30, 32\]",
        ),
        (
            lambda b: b.update(online_template=b["online_template"][:1]),
            r"online_template must be \[2, 3, 32, 32\] or \[2, n, 3, 32, 32\], got \[1, 3, 32, 32\]",
        ),
        (lambda b: b.update(search=b["search"][:1]), r"search must be \[2, 3, 48, 48\], got \[1, 3, 48, 48\]"),
        (lambda b: b.update(search=b["template"]), r"search must be \[2, 3, 48, 48\], got \[2, 3, 32, 32\]"),
    ],
)
def test_pictures_that_cannot_be_are_refused(change, message):
    model = build()
    batch = random_batch(model.config)
    change(batch)
    with pytest.raises(ValueError, match=message):
        model(**batch)
    if "search must" in message:
        cache = model.set_templates(batch["template"], batch["online_template"])
        with pytest.raises(ValueError, match=message):
            model.track(batch["search"], cache)
