"""What is the tracker's own; what holds for both is in test_trackers.py."""

import pytest
import torch

from bench.interop import check_parity, load_parity_fixture
from models.mixformer import CVT_W24, PRESETS, MixFormerCvT, MixFormerCvTConfig
from tests.models.trackers import CVT, million, random_batch, train_once

SMALL, build = CVT.small, CVT.build
CLASSES = {"mixformer-cvt": MixFormerCvT}


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


def test_shapes_of_the_outputs():
    outputs = build()(**random_batch(MixFormerCvTConfig(**SMALL)))
    assert {name: list(value.shape) for name, value in outputs.items()} == {
        "boxes_cxcywh": [2, 4],
        "template_features": [2, 24, 2, 2],
        "search_features": [2, 24, 3, 3],
    }


def test_one_online_template_may_stand_alone_or_in_a_row():
    model = build()
    batch = random_batch(model.config)
    row = model(batch["template"], batch["online_template"][:, None], batch["search"])
    assert torch.equal(row["boxes_cxcywh"], model(**batch)["boxes_cxcywh"])


def test_coordinates_of_an_odd_search_picture_are_pixels_of_it():
    model = build(search_size=53)
    assert model.box_head.coordinates.tolist() == pytest.approx([0, 16 / 53, 32 / 53, 48 / 53])


def test_frozen_batch_norms_stay_as_they_are_and_others_move():
    for freeze in (True, False):
        model = build(freeze_batch_norm=freeze)
        before = {name: value.clone() for name, value in model.state_dict().items() if "running_mean" in name}
        train_once(model, random_batch(model.config))
        after = model.state_dict()
        moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
        in_head = {name for name in before if name.startswith("box_head")}
        assert moved == (in_head if freeze else set(before))
