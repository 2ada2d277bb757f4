import dataclasses

import pytest
import torch

from bench.interop import check_parity, load_parity_fixture
from models.crossmae import PRESETS, CrossMAE, CrossMAEConfig
from models.layers.masked_vit import SIZES
from tests.models.masked_images import SMALL, VARIANTS, build, meta_batch, million, on_meta, random_batch

CLASSES = {"crossmae": CrossMAE}


def test_parity_with_the_published_code(repo_root):
    path = repo_root / "tests" / "fixtures" / "parity" / "crossmae.safetensors"
    report = check_parity(path, CLASSES.__getitem__)
    assert report.passed, report.lines()
    assert {deviation.name for deviation in report.deviations} >= {"model", "wfm.linear.weight", "dec_norms.1.bias"}
    assert len(report.deviations) == len(load_parity_fixture(path).gradient_norms) + 1


@pytest.mark.shared
def test_parity_with_the_shared_fixtures(shared_dir):
    paths = sorted((shared_dir / "parity").rglob("crossmae*.safetensors"))
    assert len(paths) >= 3
    for path in paths:
        report = check_parity(path, CLASSES.__getitem__)
        assert report.passed, report.lines()


@pytest.mark.parametrize(("size", "total"), [("S/16", 32.19), ("B/16", 127.29), ("L/16", 347.94), ("H/14", 678.49)])
def test_published_sizes(size, total):
    assert round(million(on_meta(CrossMAE, **SIZES[size])), 2) == total


def test_published_sizes_of_the_parts_of_vit_b():
    model = on_meta(CrossMAE)
    assert round(million(model, trainable=True), 2) == 127.03
    assert round(million(model, "blocks."), 2) == 85.05
    assert round(million(model, "decoder_blocks."), 2) == 40.97
    assert round(1e6 * million(model, "dec_norms.")) == 18_432
    assert round(1e6 * million(model, "wfm.")) == 156


PLAIN = {"weighted_feature_maps": False}


@pytest.mark.parametrize(
    ("size", "options", "decoder"),
    [
        ("B/16", {"decoder_layers": 8, **PLAIN}, 7.03),
        ("B/16", PLAIN, 10.49),
        ("B/16", {}, 10.50),
        ("B/16", {"prediction_ratio": 0.25}, 4.14),
        ("B/16", {"prediction_ratio": 0.25, "decoder_layers": 1}, 0.38),
        ("B/16", {"decoder_layers": 8, "decoder_self_attention": True, **PLAIN}, 9.85),
        ("B/16", {"image_size": 448}, 44.07),
        ("B/16", {"image_size": 448, "prediction_ratio": 0.25}, 17.20),
        ("S/16", {}, 2.70),
        ("S/16", {"prediction_ratio": 0.25}, 1.06),
        ("L/16", {"prediction_ratio": 0.25}, 4.47),
        ("H/14", {"prediction_ratio": 0.25}, 6.28),
    ],
)
def test_published_flops(size, options, decoder):
    model = on_meta(CrossMAE, **{**SIZES[size], **options})
    assert round(model.decode_flops(meta_batch(model.config)) / 1e9, 2) == decoder


def test_presets():
    assert list(PRESETS) == ["tiny", "small", "paper"]
    assert PRESETS["paper"].counts == (49, 0, 147)
    assert PRESETS["small"].counts == (64, 0, 192)
    assert PRESETS["tiny"].counts == (16, 0, 48)
    assert million(CrossMAE(PRESETS["tiny"])) < 2


# --- which patches are predicted -----------------------------------------------------------------------------------


def test_a_part_of_the_hidden_patches_is_predicted_in_raster_order():
    model = build("crossmae part", decoder_self_attention=False)
    batch = random_batch(model.config)
    part, everything = model(**batch), model(**batch, predict_all=True)
    assert part["prediction"].shape == (2, 7, 48)  # 25 - floor(6.25) - floor(12.5)
    assert everything["prediction"].shape == (2, 19, 48)
    largest = batch["noise"].argsort(dim=1)[:, -7:]
    for image in range(2):
        assert part["mask"][image].nonzero().flatten().tolist() == sorted(largest[image].tolist())
    # Predictions do not depend on what else is predicted, so these are the same patches of the same picture.
    chosen = part["mask"].bool()[everything["mask"].bool()].view(2, 19)
    torch.testing.assert_close(part["prediction"], everything["prediction"][chosen].view(2, 7, 48))


def test_with_self_attention_predicted_patches_read_one_another():
    model = build("crossmae part")
    batch = random_batch(model.config)
    part, everything = model(**batch), model(**batch, predict_all=True)
    chosen = part["mask"].bool()[everything["mask"].bool()].view(2, 19)
    assert (part["prediction"] - everything["prediction"][chosen].view(2, 7, 48)).abs().max() > 1e-3


# --- feature maps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "maps"),
    [
        ({}, (0, 1, 2, 3)),
        ({"use_input": False}, (1, 2, 3)),
        ({"feature_layers": [-1]}, (0, 3)),
        ({"feature_layers": [-1, 0], "use_input": False}, (1, 3)),
        ({"feature_layers": [1]}, (0, 2)),
        ({"weighted_feature_maps": False}, (3,)),
        ({"weighted_feature_maps": False, "use_input": False, "feature_layers": [0]}, (3,)),
    ],
)
def test_which_maps_are_read(options, maps):
    config = CrossMAEConfig(**SMALL, **options)
    assert config.read_maps == maps
    state = CrossMAE(config).state_dict()
    if config.weighted_feature_maps:
        assert state["wfm.linear.weight"].shape == (2, len(maps))
        assert not {"norm.weight", "norm.bias"} & state.keys()
    else:
        assert not any(name.startswith(("wfm", "dec_norms")) for name in state)


def test_blocks_behind_the_last_map_neither_run_nor_learn():
    model = build("crossmae first")
    batch = random_batch(model.config)
    names = model.unused_parameters()
    assert {name.split(".")[1] for name in names} == {"1", "2"}
    assert len(names) == 24
    before = model(**batch)["prediction"]
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).fill_(float("nan"))
    assert torch.equal(model(**batch)["prediction"], before)
    full = build("crossmae default")
    counts = meta_batch(full.config)
    embedding = 2 * 25 * 48 * 24
    assert (model.encode_flops(counts) - embedding) * 3 == full.encode_flops(counts) - embedding


def test_maps_come_in_the_order_of_the_encoder():
    first, second = build("crossmae ends"), build("crossmae ends", feature_layers=[-1, 0])
    batch = random_batch(first.config)
    assert torch.equal(first(**batch)["prediction"], second(**batch)["prediction"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_layers": [3]}, "feature_layers must lie between -3 and 2 with 3 encoder layers, got 3"),
        ({"feature_layers": [0, -4]}, "got -4"),
        ({"feature_layers": [0, -3]}, r"feature_layers must name a block once, got \[0, -3\]"),
        ({"feature_layers": []}, r"feature_layers must be a list of encoder blocks or null for all, got \[\]"),
        ({"feature_layers": 2}, "null for all, got 2"),
        ({"feature_layers": "all"}, "null for all, got 'all'"),
        ({"feature_layers": [True]}, r"null for all, got \[True\]"),
        ({"prediction_ratio": 0.8}, "prediction_ratio must be a number above 0 and at most mask_ratio 0.75, got 0.8"),
        ({"use_input": None}, "use_input must be true or false, got None"),
    ],
)
def test_options_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        CrossMAEConfig(**{**SMALL, **change})


def test_a_configuration_can_be_written_down_and_read_again():
    for name, (cls, own) in VARIANTS.items():
        config = cls.config_class(**{**SMALL, **own})
        assert cls.config_class(**dataclasses.asdict(config)) == config, name
        assert hash(config) == hash(cls.config_class(**dataclasses.asdict(config)))
