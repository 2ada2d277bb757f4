"""What holds for both of MixFormer's trackers."""

import dataclasses
import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.engine.flops import triangulate
from models.layers.conv_attention import DropPath
from models.layers.mixed_tracker import ATTENTIONS
from models.mixformer_vit import HEADS
from tests.models.trackers import CVT, INPUTS, VIT, random_batch, train_once

FREEZES = [(CVT, {"freeze_batch_norm": freeze}) for freeze in (True, False)]
HEADED = [(VIT, {"head": head}) for head in HEADS]

both = pytest.mark.parametrize("tracker", [CVT, VIT], ids=["cvt", "vit"])
attentions = pytest.mark.parametrize("attention", ATTENTIONS)


# --- who reads whom ------------------------------------------------------------------------------------------------


@both
@attentions
def test_templates_read_the_search_picture_in_the_symmetric_design_alone(tracker, attention):
    model = tracker.build(attention=attention)
    batch, other = random_batch(model.config), random_batch(model.config, seed=1)
    plain = model(**batch)
    changed = model(**{**batch, "search": other["search"]})["template_features"]
    assert torch.equal(plain["template_features"], changed) == (attention == "asymmetric")
    online = model(**{**batch, "online_template": other["online_template"]})
    for name in plain:
        assert (online[name] - plain[name]).abs().max() > 1e-4, name


@both
def test_both_templates_have_the_same_positions_and_only_the_first_is_returned(tracker):
    model = tracker.build()
    batch = random_batch(model.config)
    swapped, straight = model(batch["online_template"], batch["template"], batch["search"]), model(**batch)
    torch.testing.assert_close(swapped["boxes_cxcywh"], straight["boxes_cxcywh"])
    assert not torch.allclose(swapped["template_features"], straight["template_features"])


# --- templates kept over frames ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tracker", "sizes"),
    [
        (CVT, {}),
        (CVT, {"search_size": 53, "template_size": 37}),
        (VIT, {}),
        (VIT, {"search_size": 35, "template_size": 15, "patch_size": 5}),
    ],
)
@attentions
@pytest.mark.parametrize("online", [None, 1, 3])
def test_kept_templates_equal_the_full_forward(tracker, attention, online, sizes):
    model = tracker.build(attention=attention, **sizes)
    batch = random_batch(model.config, online=online)
    boxes, relative = (1e-6, 0) if tracker is CVT else (1e-5, 1e-5)
    with torch.inference_mode():
        cache = model.set_templates(batch["template"], batch["online_template"])
        for seed in range(2):
            search = random_batch(model.config, seed=seed)["search"]
            full = model(batch["template"], batch["online_template"], search)
            torch.testing.assert_close(model.track(search, cache), full["boxes_cxcywh"], atol=boxes, rtol=0)
            for name, value in model.read(search, cache).items():
                torch.testing.assert_close(value, full[name], atol=1e-5, rtol=relative)


@pytest.mark.parametrize(("tracker", "options"), [(CVT, {}), *HEADED])
@attentions
@pytest.mark.parametrize("online", [1, 4])
def test_costs_of_kept_templates_are_as_counted(tracker, options, attention, online):
    with torch.device("meta"):
        model = tracker.model(tracker.config(attention=attention, **options)).eval()
    batch = {name: value.to("meta") for name, value in random_batch(model.config, online=online).items()}
    with FlopCounterMode(display=False) as counter:
        cache = model.set_templates(batch["template"], batch["online_template"])
    assert counter.get_total_flops() == 2 * model.flops_templates(online)
    with FlopCounterMode(display=False) as counter:
        model.track(batch["search"], cache)
    assert counter.get_total_flops() == 2 * model.flops_track(online)
    assert model.flops_templates(online) + model.flops_track(online) == model.flops(batch) // 2


# --- sizes and counts ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tracker", "options"),
    [
        (CVT, {"attention": "asymmetric", "search_size": 63, "template_size": 31}),
        (CVT, {"attention": "symmetric", "search_size": 33, "template_size": 3}),
        (VIT, {"attention": "asymmetric", "search_size": 56, "template_size": 8, "head": "pyramid"}),
        (VIT, {"attention": "symmetric", "search_size": 56, "template_size": 8, "head": "corner"}),
    ],
)
def test_flops_agree_three_ways(tracker, options):
    config = tracker.config(**options)
    report = triangulate(lambda: tracker.model(config), random_batch(config), INPUTS, require_closed_form=True)
    assert len(set(report.counters.values())) == 1


@pytest.mark.parametrize(
    ("tracker", "name"), [(tracker, name) for tracker in (CVT, VIT) for name in tracker.module.PRESETS]
)
def test_presets(tracker, name):
    config = tracker.module.PRESETS[name]
    with torch.device("meta"):
        outputs = tracker.model(config)(**{k: v.to("meta") for k, v in random_batch(config, 1).items()})
    assert outputs["search_features"].shape[-1] == config.search_size // getattr(config, "patch_size", 16)
    assert type(config)(**dataclasses.asdict(config)) == config
    assert len({config, type(config)(**dataclasses.asdict(config))}) == 1


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tracker", "options"), [*FREEZES, *HEADED])
@attentions
def test_gradients_reach_all_weights(tracker, options, attention):
    torch.manual_seed(0)  # a few channels behind a ReLU: some draws leave one of them dead
    model = tracker.build(attention=attention, **options)
    assert train_once(model, random_batch(model.config)).isfinite()
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert set(dict(model.named_parameters())) - set(weights) == {"box_head.conv5_tl.bias", "box_head.conv5_br.bias"}
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights.values())
    # Without gradient but for rounding are biases that a softmax or a batch norm takes away again.
    idle = {name for name, weight in weights.items() if not weight.grad.any()}
    known = r"proj_k\.bias$|\.0\.bias$" if tracker is CVT else r"^box_head.*\.0\.bias$"
    assert all(re.search(known, name) for name in idle)
    assert sum(".bn." in name for name in weights) == (5 * 3 * 2 if options.get("freeze_batch_norm") is False else 0)


@pytest.mark.parametrize(
    ("tracker", "options", "rates"),
    [
        (CVT, {"layers": (1, 3, 2), "drop_path": (0.5, 0.2, 0.1)}, [0, 0, 0.1, 0.2, 0, 0.1]),  # anew in each stage
        (VIT, {"drop_path": 0.2}, [0, 0.1, 0.2]),
        (VIT, {"drop_path": 0.2, "layers": 1}, [0]),
    ],
)
def test_drop_path_grows_linearly(tracker, options, rates):
    model = tracker.build(**options)
    assert [part.rate for part in model.modules() if isinstance(part, DropPath)] == pytest.approx(rates)
    batch = random_batch(model.config, samples=8)
    for training in (False, True):
        model.train(training)
        same = torch.equal(model(**batch)["search_features"], model(**batch)["search_features"])
        assert same != (training and any(rates))


@pytest.mark.parametrize(("tracker", "options"), [*FREEZES, (VIT, {})])
def test_bf16_is_finite_and_boxes_are_single_precision(tracker, options):
    model = tracker.build(**options)
    with torch.autocast("cpu", torch.bfloat16):
        loss = train_once(model, random_batch(model.config))
        boxes = model.eval()(**random_batch(model.config))["boxes_cxcywh"]
    assert loss.isfinite()
    assert boxes.dtype == torch.float32
    assert boxes.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.requires_grad)


# --- scores --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tracker", "box", "below", "right"),
    [
        (CVT, [0.3, 0.4, 0.2, 0.2], 4, 3),  # cells 1 to 2 across, 1.5 to 2.5 down, of 5
        (VIT, [0.15, 0.35, 0.1, 0.1], 6, 4),  # cells 1 to 2 across, 3 to 4 down, of 10
    ],
)
def test_scores_are_of_what_is_in_the_box(tracker, box, below, right):
    model = tracker.build(score_branch=True, search_size=80)
    outputs, box = model(**random_batch(model.config, samples=1)), torch.tensor([box])
    template, search = outputs["template_features"], outputs["search_features"].clone()
    score = model.score(template, search, box)
    assert score.shape == (1,)
    search[..., below:, :], search[..., right:] = 0, 0
    assert torch.equal(model.score(template, search, box), score)
    search[..., 3, 1] = 0
    assert not torch.equal(model.score(template, search, box), score)
    assert not torch.equal(model.score(template + 1, search, box), model.score(template, search, box))


@both
def test_the_score_branch_is_trained_on_its_own(tracker):
    model = tracker.build(score_branch=True)
    batch = random_batch(model.config)
    train_once(model, batch)
    names = {name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None}
    assert names == model.unused_parameters() == {name for name in names if name.startswith("score_branch.")}
    outputs = model(**batch)
    logits = model.score(outputs["template_features"], outputs["search_features"], torch.rand(2, 4))
    torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor([0.0, 1.0])).backward()
    assert all(model.get_parameter(name).grad.isfinite().all() for name in names)
    assert tracker.build().unused_parameters() == frozenset()


@both
def test_score_weights_are_loaded_where_there_is_a_branch_and_dropped_where_not(tracker):
    state = tracker.build(score_branch=True).state_dict()
    batch = random_batch(tracker.config())
    scored, plain = (
        tracker.model.from_reference(state, **tracker.small, score_branch=branch).eval() for branch in (True, False)
    )
    assert (scored.score_branch is None, plain.score_branch is None) == (False, True)
    assert torch.equal(scored(**batch)["boxes_cxcywh"], plain(**batch)["boxes_cxcywh"])
    del state["score_branch.score_token"]
    with pytest.raises(ValueError, match=r"missing key 'score_branch.score_token'"):
        tracker.model.from_reference(state, **tracker.small, score_branch=True)
    with pytest.raises(ValueError, match="score_branch must be true for boxes to be scored, got False"):
        plain.score(torch.zeros(1, 24, 2, 2), torch.zeros(1, 24, 3, 3), torch.zeros(1, 4))


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tracker", "change", "message"),
    [
        (CVT, {"search_size": 0}, "search_size must be an integer >= 1, got 0"),
        (CVT, {"template_size": 2}, "template_size must be at least 3 pixels, got 2"),
        (CVT, {"widths": (8, 16)}, r"widths must be a list of 3 numbers, one a stage, got \(8, 16\)"),
        (CVT, {"layers": (1, 0, 1)}, r"layers must hold integers >= 1, got \[1, 0, 1\]"),
        (CVT, {"heads": (1, 5, 6)}, "widths must be a multiple of its 5 heads, got 12: try 10"),
        (CVT, {"drop_path": (0, 0, 1.0)}, r"drop_path must hold numbers >= 0 and below 1, got \[0, 0, 1.0\]"),
        (CVT, {"freeze_batch_norm": 1}, "freeze_batch_norm must be true or false, got 1"),
        (VIT, {"search_size": 45}, "search_size must be a multiple of patch_size 8, got 45: try 40"),
        (VIT, {"template_size": 7}, "template_size must be a multiple of patch_size 8, got 7: try 8"),
        (VIT, {"patch_size": 0}, "patch_size must be an integer >= 1, got 0"),
        (VIT, {"width": 30}, "width must be a multiple of 4 and of its 3 heads, got 30: try 24"),
        (VIT, {"layers": 0}, "layers must be an integer >= 1, got 0"),
        (VIT, {"head": "centre"}, "head must be one of pyramid, corner, got 'centre'"),
        (VIT, {"drop_path": 1.0}, "drop_path must be a number >= 0 and below 1, got 1.0"),
        (VIT, {"score_branch": 1}, "score_branch must be true or false, got 1"),
        *((each, {"head_width": 20}, "head_width must be a multiple of 8, got 20: try 16") for each in (CVT, VIT)),
        *(
            (each, {"attention": "full"}, "attention must be one of asymmetric, symmetric, got 'full'")
            for each in (CVT, VIT)
        ),
    ],
)
def test_options_that_cannot_be_are_refused(tracker, change, message):
    with pytest.raises(ValueError, match=message):
        tracker.config(**change)


@both
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: {"template": b["template"][:, :, :-2]}, "template must be [B, 3, {t}, {t}], got [2, 3, {cut}, {t}]"),
        (
            lambda b: {"online_template": b["online_template"][:1]},
            "online_template must be [2, 3, {t}, {t}] or [2, n, 3, {t}, {t}], got [1, 3, {t}, {t}]",
        ),
        (lambda b: {"search": b["search"][:1]}, "search must be [2, 3, {s}, {s}], got [1, 3, {s}, {s}]"),
        (lambda b: {"search": b["template"]}, "search must be [2, 3, {s}, {s}], got [2, 3, {t}, {t}]"),
    ],
)
def test_pictures_that_cannot_be_are_refused(tracker, change, message):
    model = tracker.build()
    batch, t, s = random_batch(model.config), model.config.template_size, model.config.search_size
    message = re.escape(message.format(t=t, s=s, cut=t - 2))
    wrong = {**batch, **change(batch)}
    with pytest.raises(ValueError, match=message):
        model(**wrong)
    if "search" in change(batch):
        cache = model.set_templates(batch["template"], batch["online_template"])
        with pytest.raises(ValueError, match=message):
            model.track(wrong["search"], cache)
