"""Hydrograph scores: known values, invariances, and what is left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.metrics import hydrology


@pytest.fixture
def flows() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    observed = generator.lognormal(size=(4, 300))
    return observed * generator.lognormal(sigma=0.3, size=observed.shape), observed


def test_a_perfect_simulation_scores_one(flows) -> None:
    _, observed = flows
    np.testing.assert_allclose(hydrology.nse(observed, observed), 1)
    np.testing.assert_allclose(hydrology.log_nse(observed, observed), 1)
    for part in hydrology.kge(observed, observed):
        np.testing.assert_allclose(part, 1)


def test_the_mean_of_the_observations_scores_zero_and_by_knoben_1_minus_root_2(flows) -> None:
    _, observed = flows
    mean = np.broadcast_to(observed.mean(axis=1, keepdims=True), observed.shape)
    np.testing.assert_allclose(hydrology.nse(mean, observed), 0, atol=1e-12)
    found = hydrology.kge(mean, observed)
    np.testing.assert_allclose(found.kge, 1 - np.sqrt(2))
    np.testing.assert_array_equal(found.r, 0)


def test_kge_names_the_part_that_is_wrong(flows) -> None:
    _, observed = flows
    doubled, shifted = hydrology.kge(2 * observed, observed), hydrology.kge(observed + 1, observed)
    np.testing.assert_allclose((doubled.r, doubled.alpha, doubled.beta), [np.ones(4), np.full(4, 2), np.full(4, 2)])
    np.testing.assert_allclose(shifted.alpha, 1)
    np.testing.assert_allclose(shifted.kge, 1 - 1 / observed.mean(axis=1))


def test_parts_agree_with_numpy(flows) -> None:
    simulated, observed = flows
    found = hydrology.kge(simulated, observed)
    np.testing.assert_allclose(found.r, [np.corrcoef(s, o)[0, 1] for s, o in zip(simulated, observed, strict=True)])
    np.testing.assert_allclose(found.alpha, simulated.std(axis=1) / observed.std(axis=1))
    expected = 1 - ((simulated - observed) ** 2).mean(axis=1) / observed.var(axis=1)
    np.testing.assert_allclose(hydrology.nse(simulated, observed), expected)


def test_log_nse_minds_low_flows_and_survives_zero_and_negative_ones(flows) -> None:
    simulated, observed = flows
    low = observed < np.quantile(observed, 0.2)
    spoiled = np.where(low, 0.1 * observed, observed)
    assert (hydrology.nse(spoiled, observed) > 0.9).all()
    assert (hydrology.log_nse(spoiled, observed) < 0.5).all()
    assert np.isfinite(hydrology.log_nse(-simulated, np.where(low, 0, observed))).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.9))
def test_days_that_either_side_lacks_count_for_nothing(seed: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    simulated, observed = generator.lognormal(size=(2, 1, 60))
    gone = generator.random((2, 1, 60)) < share
    there = ~gone.any(axis=0)[0]
    if there.sum() < 3:
        return
    holes = np.where(gone[0], np.nan, simulated), np.where(gone[1], np.nan, observed)
    whole = simulated[:, there], observed[:, there]
    for score in (hydrology.nse, hydrology.log_nse, lambda s, o: hydrology.kge(s, o).kge):
        np.testing.assert_allclose(score(*holes), score(*whole))


@pytest.mark.parametrize(
    "observed", [np.full((1, 9), 0.3), np.zeros((1, 9)), np.full((1, 9), np.nan), np.zeros((1, 0))]
)
def test_a_record_that_defines_no_score_gives_nan(observed: np.ndarray) -> None:
    simulated = np.arange(float(observed.size))[None]
    scores = (
        hydrology.nse(simulated, observed),
        hydrology.log_nse(simulated, observed),
        *hydrology.kge(simulated, observed),
    )
    assert np.isnan(scores).all()


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must both be \[C, D\]"):
        hydrology.nse(np.zeros((2, 3)), np.zeros((2, 4)))
