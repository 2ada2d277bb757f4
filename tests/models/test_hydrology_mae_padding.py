"""Padding in the hydrology model: whatever the mode, it reaches nothing."""

import pytest
import torch

from tests.models.hydrology_batches import (
    MODES,
    MULTIMODAL,
    RAGGED_IMAGES,
    RAGGED_SERIES,
    VARIANTS,
    alone,
    assert_close,
    assert_same_gradients,
    build,
    gradients,
    ragged_batch,
    random_batch,
    scalar,
)

ONE_EACH = {"image_modalities": 1, "series_modalities": 1}


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("variant", MULTIMODAL)
def test_a_padded_sample_is_what_it_is_alone(variant, mode):
    model = build(variant, **ONE_EACH, ragged=mode)
    batch = random_batch(model.config, images=RAGGED_IMAGES[:1], series=RAGGED_SERIES[:1])
    together = model(**batch, predict_all=True)
    found = gradients(model, together["image_prediction"].square().sum() + together["series_prediction"].square().sum())
    expected = {name: torch.zeros_like(value) for name, value in found.items()}
    for sample, ((kept, masked), (days, hidden)) in enumerate(zip(RAGGED_IMAGES[0], RAGGED_SERIES[0], strict=True)):
        counts = {"image_visible": kept, "image_predicted": masked, "series_visible": days, "series_predicted": hidden}
        counts |= {"image_values": kept, "series_values": days}
        own = {name: value for name, value in alone(batch, sample).items() if not name.endswith("_mask")}
        own = {name: value[:, :, : counts[name]] if name in counts else value for name, value in own.items()}
        outputs = model(**own, predict_all=True)
        for name, size in (("image_prediction", masked), ("series_prediction", hidden)):
            torch.testing.assert_close(together[name][sample, :, :size], outputs[name][0], atol=1e-5, rtol=1e-5)
            assert not together[name][sample, :, size:].any(), "padding is zero"
        for name, value in gradients(model, sum(x.square().sum() for x in outputs.values())).items():
            expected[name] += value
    assert_same_gradients(found, expected, rtol=1e-5)


def test_packed_padded_and_automatic_are_equal(variant):
    outputs, grads = [], []
    for mode in (*MODES, "auto"):
        model = build(variant, ragged=mode)
        outputs.append(model(**ragged_batch(model.config)))
        grads.append(gradients(model, scalar(outputs[-1])))
    for other in (1, 2):
        assert_close(outputs[0], outputs[other], atol=1e-5)
        assert_same_gradients(grads[0], grads[other], rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_masks_that_hide_nothing_change_nothing(variant, mode):
    model = build(variant, ragged=mode)
    batch = random_batch(model.config)
    masks = {f"{name}_mask": value >= 0 for name, value in batch.items() if name.endswith(("_visible", "_predicted"))}
    assert_close(model(**batch), model(**batch, **masks))
    some = {name: mask for name, mask in masks.items() if "predicted" in name}
    assert_close(model(**batch), model(**batch, **some))


@pytest.mark.parametrize("mode", MODES)
def test_what_stands_in_padding_reaches_nothing(variant, mode):
    model = build(variant, ragged=mode)
    batch = ragged_batch(model.config)
    expected = model(**batch)
    before = gradients(model, scalar(expected))
    for rubbish in (0.0, 1e30, float("inf")):
        changed = dict(batch)
        for name, mask in batch.items():
            if name.endswith("_mask"):
                field = name.removesuffix("_mask")
                changed[field] = batch[field].masked_fill(~mask, 10**9)
                if field.endswith("visible"):
                    values = batch[field.replace("visible", "values")].clone()
                    values[~mask] = rubbish
                    changed[field.replace("visible", "values")] = values
        outputs = model(**changed)
        assert all(torch.equal(outputs[name], expected[name]) for name in expected)
        assert_close(gradients(model, scalar(outputs)), before, atol=0)


def test_days_behind_the_end_of_a_window_reach_nothing(variant):
    model = build(variant)
    batch = ragged_batch(model.config)
    expected = model(**batch)
    before = gradients(model, scalar(expected))
    rubbish = torch.tensor([float("nan"), 1e30, float("inf")]).expand(3, -1)
    outputs = model(**{**batch, "day_of_year": torch.cat([batch["day_of_year"], rubbish], dim=1)})
    assert_close(outputs, expected, atol=0)
    assert_same_gradients(gradients(model, scalar(outputs)), before, rtol=1e-5)
