"""FID and KID against torch-fidelity's own code, AlexNet's under their own name, and no number of other weights."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from bench.aggregates import aggregate, encode_features, frechet_distance, kernel_distance, summarise
from bench.errors import UserError
from bench.metrics import fidelity

Sets = tuple[np.ndarray, np.ndarray]


def two_sets(count: int, size: int, seed: int = 0) -> Sets:
    """Correlated features, as a network's are, of two sets that differ in mean and in spread."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(size, size)) / size**0.5
    first = np.maximum(generator.normal(0.3, 1, (count, size)) @ mixing, 0)
    second = np.maximum(generator.normal(0.1, 1.2, (count, size)) @ mixing, 0)
    return first, second


def records(first: np.ndarray, second: np.ndarray) -> list[dict[str, str]]:
    return [
        {"prediction": encode_features(one), "truth": encode_features(other)}
        for one, other in zip(first, second, strict=True)
    ]


@pytest.mark.parametrize(("count", "size"), [(150, 16), (400, 64), (100, 99)])
def test_frechet_is_torch_fidelity_s(count: int, size: int) -> None:
    first, second = two_sets(count, size)
    statistics = [fid_features_to_statistics(torch.from_numpy(features)) for features in (first, second)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("count", "size"), [(2, 8), (150, 16), (1500, 24)])  # the last in more than one block
def test_kernel_is_torch_fidelity_s_on_one_subset_of_all(count: int, size: int) -> None:
    first, second = two_sets(count, size)
    settings = {"kid_subsets": 1, "kid_subset_size": count, "verbose": False}
    found = kid_features_to_metric(torch.from_numpy(first), torch.from_numpy(second), **settings)
    assert kernel_distance(first, second) == pytest.approx(found["kernel_inception_distance_mean"], rel=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(8, 20))
def test_distances_know_neither_order_nor_side(seed: int, size: int, count: int) -> None:
    first, second = two_sets(count, size, seed)
    for distance in (frechet_distance, kernel_distance):
        found = distance(first, second)
        assert distance(second, first) == pytest.approx(found, rel=1e-9, abs=1e-12)
        assert distance(first[::-1], second) == pytest.approx(found, rel=1e-9, abs=1e-12)
    assert frechet_distance(first, second) >= 0
    assert frechet_distance(first, first[::-1]) == pytest.approx(0, abs=1e-9)
    # of the same images the unbiased estimate is below 0: a pair of equal ones counts between the sets, not within
    assert kernel_distance(first, first) <= 1e-12


def test_features_that_do_not_suffice_have_no_distance() -> None:
    first, second = two_sets(16, 16)
    assert np.isnan(frechet_distance(first, second))
    assert np.isnan(kernel_distance(first[:1], second[:1]))
    assert np.isnan(aggregate([], "frechet"))
    assert summarise(fidelity.metrics("alexnet", None), [{"sample": "a", "alexnet": records(first, second)[0]}]) == {}


def test_records_hold_the_set_to_11_bits_and_a_changed_one_another_number() -> None:
    first, second = two_sets(150, 16)
    values = records(first, second)
    for how, distance in (("frechet", frechet_distance), ("kernel", kernel_distance)):
        kept = distance(first.astype(np.float16).astype(float), second.astype(np.float16).astype(float))
        assert aggregate(values, how) == kept
        assert kept == pytest.approx(distance(first, second), rel=1e-3)
        assert aggregate([{**values[0], "truth": values[1]["truth"]}, *values[1:]], how) != kept


@pytest.mark.parametrize(
    "damage",
    [
        {"truth": "not Base64"},
        {"truth": encode_features(np.zeros(3))},
        {"truth": "/////////////////////w=="},  # NaN
        {"truth": None},
        {},
    ],
)
@pytest.mark.parametrize("how", ["frechet", "kernel"])
def test_damaged_features_have_no_distance(damage: dict, how: str) -> None:
    values = records(*two_sets(20, 8))
    assert np.isnan(aggregate([{"prediction": values[0]["prediction"], **damage}, *values[1:]], how))


def test_features_that_16_bits_cannot_hold_are_refused() -> None:
    for value in (1e5, float("nan")):
        with pytest.raises(FloatingPointError, match="a feature is"):
            encode_features(np.array([1.0, value]))


def images(count: int, blur: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=32, mode="nearest")
    return torch.nn.functional.avg_pool2d(fine, 2 * blur + 1, 1, blur)


def test_alexnet_sees_how_far_images_are_and_leaves_the_random_state_alone(capfd: pytest.CaptureFixture[str]) -> None:
    fidelity._network.cache_clear()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    extract = fidelity.FeatureExtractor("alexnet")
    features = extract(images(4))
    assert torch.equal(torch.rand(3), expected)
    assert features.shape == (4, fidelity.dimensions("alexnet"))
    # rounded to 8 bits and clamped: what a file of the image would give
    torch.testing.assert_close(extract(images(4).mul(255).round() / 255 + 1e-3), features)
    torch.testing.assert_close(extract(torch.full((1, 3, 32, 32), 1.5)), extract(torch.ones(1, 3, 32, 32)))
    near, far = (aggregate(extract.records(images(12, blur), images(12)), "kernel") for blur in (1, 4))
    assert far > near > 0
    assert capfd.readouterr() == ("", "")


def test_alexnet_is_never_called_fid() -> None:
    for metric in fidelity.metrics("alexnet", 300):
        assert not {"fid", "kid"} & {metric.name, *metric.label.lower().split()}
        assert "not Inception" in metric.note


def test_frechet_needs_more_images_than_features_and_the_note_says_so() -> None:
    assert [metric.name for metric in fidelity.metrics("inception-2048", 2049)] == ["fid", "kid"]
    (left,) = fidelity.metrics("inception-2048", 2048)
    assert left.name == "kid"
    assert "no FID, which needs more than 2048 images" in left.note
    assert "2048 images each" in left.note
    assert [metric.name for metric in fidelity.metrics("inception-64", 200)] == ["fid_64", "kid_64"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of Inception's layout. Its numbers mean nothing, so only what is read from it can be tested."""
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    with torch.random.fork_rng(devices=[]), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.save({}, path)
        torch.save(FeatureExtractorInceptionV3("any", ["64"], str(path)).state_dict(), path)
    return path


def test_inception_s_features_are_torch_fidelity_s(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    monkeypatch.setattr(fidelity, "_INCEPTION", dataclasses.replace(fidelity._INCEPTION, sha256=found[:8]))
    pixels = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    own = FeatureExtractorInceptionV3("own", ["192"], str(weights))(pixels)[0]
    extract = fidelity.FeatureExtractor("inception-192", str(weights))
    torch.testing.assert_close(extract(pixels / 255), own)
    assert own.shape == (2, 192)


def test_other_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    fidelity._network.cache_clear()
    with pytest.raises(
        UserError, match=r"task.fidelity_weights: .*inception.pth is not weights-inception-.*6726825d.pth"
    ):
        fidelity.FeatureExtractor("inception-64", str(weights)).prepare()
    with pytest.raises(UserError, match=r"task.fidelity_weights: .* is no file: download weights-inception"):
        fidelity.FeatureExtractor("inception-64", str(tmp_path / "absent.pth")).prepare()


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"task.fidelity: alexnet needs the package stlpips-pytorch: pip install"):
        fidelity.FeatureExtractor("alexnet")
