"""What the hydrology model must hold in every variant, with and without padding."""

import math
import re
from decimal import ROUND_CEILING, Decimal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.hydrology_mae import HydrologyMAE, HydrologyMAEConfig
from tests.models.hydrology_batches import (
    MODES,
    MULTIMODAL,
    VARIANTS,
    alone,
    assert_close,
    both,
    build,
    gradients,
    ragged_batch,
    random_batch,
    scalar,
)


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


# --- samples, order, modalities ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_samples_do_not_see_one_another(variant, mode):
    model = build(variant, ragged=mode)
    for kind, batch in both(model.config).items():
        # Not only other contents: the samples change places, so that more or less of each is there.
        other = {name: value.roll(1, 0) for name, value in both(model.config, seed=1)[kind].items()}
        for own in range(3):
            mixed = {name: torch.where(_is(own, value), batch[name], value) for name, value in other.items()}
            mixed = {
                name: value.clone().requires_grad_() if value.is_floating_point() else value
                for name, value in mixed.items()
            }
            outputs = model(**mixed)
            assert_close(alone(outputs, own), alone(model(**batch), own))
            scalar(outputs)[own].backward()
            for name, value in mixed.items():
                if value.requires_grad and value.grad is not None:
                    elsewhere = value.grad[[sample for sample in range(3) if sample != own]]
                    assert not elsewhere.any(), name


def _is(sample, value):
    return (torch.arange(len(value)) == sample).view(-1, *[1] * (value.ndim - 1))


def test_the_order_of_tokens_does_not_matter(variant):
    model = build(variant)
    batch = random_batch(model.config)
    expected, changed = model(**batch, predict_all=True), dict(batch)
    orders = {}
    for name, value in batch.items():
        if name.endswith(("_visible", "_predicted")):
            orders[name] = torch.randperm(value.shape[2])
            changed[name] = value[:, :, orders[name]]
            if name.endswith("_visible"):
                values = name.replace("visible", "values")
                changed[values] = batch[values][:, :, orders[name]]
    outputs = model(**changed, predict_all=True)
    for kind in ("image", "series"):
        if f"{kind}_prediction" in outputs:
            moved = expected[f"{kind}_prediction"][:, :, orders[f"{kind}_predicted"]]
            torch.testing.assert_close(outputs[f"{kind}_prediction"], moved, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", MULTIMODAL)
def test_modalities_exchange_what_they_know_only_in_the_shared_encoder(variant):
    model = build(variant)
    batch = random_batch(model.config)
    before = model(**batch)
    shared = model.config.encoder == "shared"
    for kind, modality in (("image", 0), ("image", 1), ("series", 0), ("series", 1)):
        values = batch[f"{kind}_values"].clone()
        values[:, modality] += 1
        after = model(**{**batch, f"{kind}_values": values})
        for other in ("image", "series"):
            gap = (after[f"{other}_prediction"] - before[f"{other}_prediction"]).abs().flatten(2).amax((0, 2))
            for one in (0, 1):
                moves = (other, one) == (kind, modality) or shared
                assert (gap[one] > 1e-6) == moves, (kind, modality, other, one)


def test_static_attributes_reach_every_series(variant):
    model = build(variant)
    if not (model.config.series_modalities and model.config.static_attributes):
        pytest.skip("no static attributes")
    batch = random_batch(model.config)
    before, after = model(**batch), model(**{**batch, "statics": batch["statics"] + 1})
    gap = (after["series_prediction"] - before["series_prediction"]).abs().amax((0, 2))
    assert (gap > 1e-5).all()
    unmoved = torch.equal(before["image_prediction"], after["image_prediction"])
    assert unmoved == (model.config.encoder == "separate")


# --- places --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["visible", "predicted"])
@pytest.mark.parametrize("kind", ["image", "series"])
@pytest.mark.parametrize("variant", ["cross", "self", "shared cross", "shared self", "no calendar"])
def test_a_token_knows_its_own_day_and_patch(variant, kind, part):
    """Also after compaction: moving one token to another day moves its sample's predictions."""
    model = build(variant)
    batch = random_batch(model.config, series=(2, 2))
    before = model(**batch)[f"{kind}_prediction"]
    step = {"image": (1, 7), "series": (1,)}[kind]  # the next patch, the next day
    total = {"image": 35, "series": 5}[kind]
    for forward in step:
        index = batch[f"{kind}_{part}"].clone()
        index[0, 0, 0] = (index[0, 0, 0] + forward) % total
        after = model(**{**batch, f"{kind}_{part}": index})[f"{kind}_prediction"]
        assert (after[0, 0] - before[0, 0]).abs().max() > 1e-5
        torch.testing.assert_close(after[1:], before[1:])


def test_the_day_of_the_year_matters_with_the_calendar_only(variant):
    model = build(variant)
    batch = random_batch(model.config)
    before, after = model(**batch), model(**{**batch, "day_of_year": (batch["day_of_year"] + 90) % 365})
    for name in before:
        assert bool((before[name] - after[name]).abs().max() > 1e-5) == model.config.calendar


def test_the_place_in_the_grid_matters_and_not_the_number_of_the_patch():
    model = build("cross")
    batch = random_batch(model.config)
    before = model(**batch)["image_prediction"]
    moved = model(**{**batch, "patch_positions": batch["patch_positions"] + 1})["image_prediction"]
    assert (before - moved).abs().max() > 1e-5
    turned = {**batch, "patch_positions": batch["patch_positions"].flip(1)}
    for name in ("image_visible", "image_predicted"):
        turned[name] = batch[name] // 7 * 7 + 6 - batch[name] % 7
    torch.testing.assert_close(model(**turned)["image_prediction"], before, atol=1e-6, rtol=1e-6)


# --- degenerate and missing ----------------------------------------------------------------------------------------

WITH_GAPS = ("no sample has a modality", "a sample has nothing")
EDGES = {
    "one sample": {"samples": 1},
    "one day": {"days": 1, "images": (1, 6), "series": (0, 1)},
    "one day, one patch": {"samples": 1, "days": 1, "patches": 1, "images": (0, 1), "series": (1, 0)},
    "all hidden": {"images": (0, 35), "series": (0, 5)},
    "all visible": {"images": (35, 0), "series": (5, 0)},
    "odd": {"days": 13, "patches": 11, "images": (37, 106), "series": (5, 7)},
    "no sample has a modality": {"images": [[(3, 4)] * 3, [(0, 0)] * 3], "series": [[(0, 0)] * 3, [(2, 1)] * 3]},
    "a sample has nothing": {"images": [[(3, 4), (0, 0)]] * 2, "series": [[(2, 2), (0, 0)]] * 2, "samples": 2},
}


@pytest.mark.parametrize(
    ("edge", "mode"),
    [(edge, mode) for edge in EDGES for mode in MODES if mode == "padded" or edge in WITH_GAPS],
)
def test_edges_are_finite_and_every_weight_keeps_its_gradient(variant, edge, mode):
    model = build(variant, ragged=mode)
    if not (model.config.image_modalities and model.config.series_modalities) and edge == "no sample has a modality":
        pytest.skip("written for two modalities of each kind")
    batch = random_batch(model.config, **EDGES[edge])
    outputs = model(**batch)
    for kind in ("image", "series"):
        if f"{kind}_prediction" in outputs and model.config.prediction_ratio is None:
            assert outputs[f"{kind}_prediction"].shape[:3] == batch[f"{kind}_predicted"].shape
    found = gradients(model, scalar(outputs))
    assert all(value.isfinite().all() for value in (*outputs.values(), *found.values()))
    assert set(dict(model.named_parameters())) - set(found) == model.unused_parameters()


def test_every_weight_gets_a_gradient_but_those_declared_unused(variant):
    model = build(variant)
    for batch in both(model.config).values():
        reached = {name for name, grad in gradients(model, scalar(model(**batch))).items() if grad.any()}
        assert model.unused_parameters() == set(dict(model.named_parameters())) - reached


def test_layers_that_no_map_reads_are_idle():
    model = build("cross some maps")
    assert {re.match(r"encoders\.\d\.blocks\.\d", name)[0] for name in model.unused_parameters()} == {
        *(f"encoders.{image}.blocks.{layer}" for image in (0, 1) for layer in (1, 2)),
        *(f"encoders.{series}.blocks.1" for series in (2, 3)),
    }


@pytest.mark.parametrize("mode", MODES)
def test_bfloat16_is_finite_and_near(variant, mode):
    model = build(variant, ragged=mode)
    for batch in both(model.config).values():
        expected = model(**batch)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(**batch)
        found = gradients(model, scalar(outputs))
        assert all(value.isfinite().all() for value in (*outputs.values(), *found.values()))
        for name, value in outputs.items():
            assert value.dtype == torch.float32
            assert (value - expected[name]).norm() <= 0.05 * expected[name].norm() + 1e-6


def test_weights_survive_a_state_dict(variant):
    first, second = build(variant), build(variant, seed=1)
    batch = ragged_batch(first.config)
    second.load_state_dict(first.state_dict(), strict=True)
    assert_close(first(**batch), second(**batch), atol=0)


# --- what is predicted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["cross", "cross maps", "shared cross"])
def test_the_prediction_ratio_takes_the_first_of_the_masked_tokens(variant):
    """They do not read one another, so that leaving others out changes nothing."""
    model, part = build(variant), build(variant, prediction_ratio=0.3)
    for batch in both(model.config).values():
        whole, first = model(**batch), part(**batch)
        masked = batch["image_predicted"].shape[2]
        count = math.ceil((batch["image_visible"].shape[2] + masked) * 3 / 10)
        assert first["image_prediction"].shape[2] == count < masked
        for name in whole:
            torch.testing.assert_close(first[name], whole[name][:, :, : first[name].shape[2]], atol=1e-6, rtol=1e-6)
        assert_close(part(**batch, predict_all=True), whole)


@given(tokens=st.integers(1, 400), hundredths=st.integers(1, 100))
def test_the_number_of_predicted_tokens_is_exact(tokens, hundredths):
    ratio = hundredths / 100
    model = HydrologyMAE(HydrologyMAEConfig(image_modalities=0, series_modalities=1, static_attributes=0, width=4,
                                            layers=1, series_layers=1, heads=1, decoder_width=4, decoder_layers=1,
                                            decoder_heads=1, prediction_ratio=ratio))  # fmt: skip
    batch = random_batch(model.config, samples=1, days=tokens, series=(0, tokens))
    exact = (Decimal(hundredths) / 100 * tokens).to_integral_value(ROUND_CEILING)
    assert model(**batch)["series_prediction"].shape == (1, 1, int(exact))


def test_encoding_and_decoding_are_the_whole(variant):
    model = build(variant)
    for batch in both(model.config).values():
        encoded = model.encode(batch)
        kinds = ["image"] * model.config.image_modalities + ["series"] * model.config.series_modalities
        sizes = [batch[f"{kind}_visible"].shape[2] + 1 for kind in kinds]
        if model.config.encoder == "shared":
            sizes = [sum(sizes)] * len(sizes)
        assert [one.maps[0].shape[1] for one in encoded] == sizes, "sequences are kept, one token more each"
        assert_close(model.decode(encoded, batch), model(**batch), atol=0)


def test_it_learns_to_fill_in():
    """Every sample's field is one number, the same on all days: what is hidden is plain from what is seen."""
    model = HydrologyMAE(HydrologyMAEConfig(image_modalities=1, patch_pixels=4, series_modalities=1,
                                            static_attributes=0, width=16, layers=1, series_layers=1, heads=2,
                                            decoder_width=16, decoder_layers=1, decoder_heads=2))  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        batch = random_batch(model.config, samples=8, images=(5, 10), series=(2, 3), seed=step)
        level = torch.randn(8, generator=torch.Generator().manual_seed(step))
        batch["image_values"] = level.view(-1, 1, 1, 1).expand_as(batch["image_values"])
        batch["series_values"] = -level.view(-1, 1, 1).expand_as(batch["series_values"])
        outputs = model(**batch)
        loss = (outputs["image_prediction"] - level.view(-1, 1, 1, 1)).square().mean()
        loss = loss + (outputs["series_prediction"] + level.view(-1, 1, 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[:5]) / 5 > 1
    assert sum(losses[-5:]) / 5 < 0.3
