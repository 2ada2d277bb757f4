import pytest
import torch

from baselines.mae import MAE, PRESETS
from bench.interop import check_parity, load_parity_fixture
from models.layers.masked_vit import SIZES
from tests.models.masked_images import build, meta_batch, million, on_meta, random_batch

CLASSES = {"mae": MAE}


def test_parity_with_the_published_code(repo_root):
    path = repo_root / "tests" / "fixtures" / "parity" / "mae.safetensors"
    report = check_parity(path, CLASSES.__getitem__)
    assert report.passed, report.lines()
    assert {deviation.name for deviation in report.deviations} >= {"prediction", "mask", "model", "cls_token"}
    assert len(report.deviations) == len(load_parity_fixture(path).gradient_norms) + 3


@pytest.mark.shared
def test_parity_with_the_shared_fixtures(shared_dir):
    paths = sorted((shared_dir / "parity").rglob("mae*.safetensors"))
    assert len(paths) >= 2
    for path in paths:
        report = check_parity(path, CLASSES.__getitem__)
        assert report.passed, report.lines()


@pytest.mark.parametrize(("size", "total"), [("S/16", 28.33), ("B/16", 111.91), ("L/16", 329.54), ("H/14", 657.07)])
def test_published_sizes(size, total):
    assert round(million(on_meta(MAE, **SIZES[size])), 2) == total


def test_published_sizes_of_the_parts_of_vit_b():
    model = on_meta(MAE)
    assert round(million(model, trainable=True), 2) == 111.66
    assert round(million(model, "blocks."), 2) == 85.05
    assert round(million(model, "patch_embed."), 2) == 0.59
    assert round(million(model, "decoder_blocks."), 2) == 25.22
    assert round(million(model, "decoder_embed."), 3) == round(million(model, "decoder_pred."), 3) == 0.394


@pytest.mark.parametrize(
    ("size", "image_size", "encoder", "decoder"),
    [
        ("S/16", 224, 2.285, 2.884),
        ("B/16", 224, 8.817, 10.745),
        ("L/16", 224, 30.75, 10.76),
        ("H/14", 224, 82.87, 14.26),
        ("B/16", 448, 35.82, 50.38),
    ],
)
def test_published_flops(size, image_size, encoder, decoder):
    model = on_meta(MAE, image_size=image_size, **SIZES[size])
    batch = meta_batch(model.config)
    digits = 3 if encoder < 10 else 2
    assert round(model.encode_flops(batch) / 1e9, digits) == encoder
    assert round(model.decode_flops(batch) / 1e9, digits) == decoder


def test_presets():
    assert list(PRESETS) == ["tiny", "small", "paper"]
    assert PRESETS["paper"].counts == (49, 0, 147)
    assert PRESETS["small"].counts == (64, 0, 192)
    assert PRESETS["tiny"].counts == (16, 0, 48)
    assert million(MAE(PRESETS["tiny"])) < 2


def test_all_patches_are_predicted_always():
    model = build("mae")
    batch = random_batch(model.config)
    outputs = model(**batch)
    assert outputs["prediction"].shape == (2, 25, 48)
    assert outputs["mask"].sum(1).tolist() == [19, 19]
    for name, value in model(**batch, predict_all=True).items():
        assert torch.equal(value, outputs[name])


def test_every_patch_reads_hidden_ones_and_the_class_token():
    model = build("mae")
    batch = random_batch(model.config)
    before = model(**batch)
    for row in (0, 1 + before["mask"][0].argmax()):  # of the class token, and of a hidden patch of the first image
        place = model.decoder_pos_embed.data[0, row]
        kept = place.clone()
        place.copy_(torch.linspace(-1, 2, len(place)))
        changed = (model(**batch)["prediction"] - before["prediction"])[0].abs().amax(-1)
        assert changed.min() > 1e-4
        place.copy_(kept)
