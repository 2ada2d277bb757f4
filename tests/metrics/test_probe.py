"""Probes: k-NN by hand, ridge against brute-force leave-one-out, and what neither may depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.metrics import probe


def blobs(count: int, classes: int = 3, width: int = 8, seed: int = 0, spread: float = 0.3) -> tuple:
    """Features about one corner a class, and the classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    return torch.eye(classes, width)[labels] + spread * torch.randn(count, width, generator=generator), labels


@pytest.mark.parametrize("predict", probe.PROBES.values(), ids=probe.PROBES)
def test_separable_classes_are_told_and_shuffled_ones_are_not(predict) -> None:
    (train, labels), (test, truth) = blobs(300), blobs(90, seed=1)
    assert (predict(train, labels, test, 3) == truth).double().mean() > 0.95
    scrambled = labels[torch.randperm(300, generator=torch.Generator().manual_seed(2))]
    assert (predict(train, scrambled, test, 3) == truth).double().mean() < 0.6


@pytest.mark.parametrize("predict", probe.PROBES.values(), ids=probe.PROBES)
def test_a_probe_is_deterministic_and_survives_features_that_say_nothing(predict) -> None:
    (train, labels), (test, _) = blobs(60, spread=1.0), blobs(30, seed=1, spread=1.0)
    first = predict(train, labels, test, 3)
    assert torch.equal(first, predict(train, labels, test, 3))
    constant = torch.ones(60, 4)
    assert predict(constant, labels, torch.ones(5, 4), 3).shape == (5,)
    few = predict(train[:2], labels[:2], test, 3)
    assert set(few.tolist()) <= {0, 1}


@pytest.mark.parametrize("predict", probe.PROBES.values(), ids=probe.PROBES)
def test_a_probe_calls_nothing_whose_sums_come_in_any_order_on_a_gpu(predict) -> None:
    called = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            called.add(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    (train, labels), (test, _) = blobs(60), blobs(30, seed=1)
    with Watch():
        predict(train, labels, test, 3)
    assert "sum" in called
    assert not {name for name in called if "_add" in name or "reduce" in name or name in ("bincount", "index_put_")}


def test_neighbours_vote_by_the_exponential_of_their_cosine() -> None:
    generator = np.random.default_rng(0)
    train, test = generator.normal(size=(200, 5)), generator.normal(size=(40, 5))
    labels = generator.integers(0, 4, 200)
    expected = []
    for feature in test:
        cosine = train @ feature / np.linalg.norm(train, axis=1) / np.linalg.norm(feature)
        nearest = np.argsort(-cosine)[: probe.NEIGHBOURS]
        votes = np.zeros(4)
        np.add.at(votes, labels[nearest], np.exp(cosine[nearest] / probe.TEMPERATURE))
        expected.append(votes.argmax())
    found = probe.nearest_neighbours(*map(torch.from_numpy, (train, labels, test)), 4)
    assert found.tolist() == expected


def test_of_classes_with_equal_votes_the_first_is_chosen() -> None:
    train, labels = torch.eye(4), torch.tensor([3, 1, 2, 1])
    test = torch.tensor([[1.0, 0.0, 1.0, 0.0], [1.0, 0.5, 0.0, 0.5], [0.0, 0.0, 1.0, 0.0]])
    assert probe.nearest_neighbours(train, labels, test, 4).tolist() == [2, 3, 2]
    assert probe.nearest_neighbours(train, labels, torch.ones(1, 4), 4).tolist() == [1]


def test_neighbours_care_for_the_direction_of_a_feature_alone() -> None:
    (train, labels), (test, _) = blobs(60, spread=1.0), blobs(30, seed=1, spread=1.0)
    stretched = train * torch.rand(60, 1, generator=torch.Generator().manual_seed(3)).add(0.1)
    assert torch.equal(
        probe.nearest_neighbours(train, labels, test, 3), probe.nearest_neighbours(stretched, labels, 7 * test, 3)
    )


def test_the_linear_probe_is_ridge_with_the_penalty_of_least_leave_one_out_error(monkeypatch) -> None:
    (train, labels), (test, _) = blobs(30, width=6, spread=1.0), blobs(20, width=6, seed=1, spread=1.0)
    x, y = train.double().numpy(), np.eye(3)[labels]
    mean, scale = x.mean(0), x.std(0)
    x, x_test = (x - mean) / scale, (test.double().numpy() - mean) / scale

    def fit(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
        return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)

    errors = {}
    for penalty in probe.PENALTIES:
        # leave one out with the intercept left free and the penalty in place, by refitting 30 times
        left = 0.0
        for i in range(30):
            rest = np.arange(30) != i
            middle, offset = x[rest].mean(0), y[rest].mean(0)
            weights = fit(x[rest] - middle, y[rest] - offset, 30 * penalty)
            left += ((x[i] - middle) @ weights + offset - y[i]) @ ((x[i] - middle) @ weights + offset - y[i])
        errors[penalty] = left
    best = min(errors, key=errors.get)
    assert best not in (probe.PENALTIES[0], probe.PENALTIES[-1]), "the choice must matter here"
    expected = (x_test @ fit(x, y - y.mean(0), 30 * best) + y.mean(0)).argmax(1)
    assert probe.linear_classifier(train, labels, test, 3).tolist() == expected.tolist()
    monkeypatch.setattr(probe, "PENALTIES", (best,))
    assert probe.linear_classifier(train, labels, test, 3).tolist() == expected.tolist()


def test_the_linear_probe_does_not_care_for_scale_and_shift_of_features() -> None:
    (train, labels), (test, _) = blobs(90, spread=0.8), blobs(40, seed=1, spread=0.8)
    scale = torch.logspace(-3, 3, 8)
    moved = probe.linear_classifier(train * scale + 5, labels, test * scale + 5, 3)
    assert (moved == probe.linear_classifier(train, labels, test, 3)).all()


def test_images_without_a_class_teach_nothing_and_are_never_right() -> None:
    (train, labels), (test, truth) = blobs(90), blobs(30, seed=1)
    train, labels = torch.cat([train, 100 * torch.ones(5, 8)]), torch.cat([labels, torch.full((5,), -1)])
    truth = truth.clone()
    truth[:3] = -1
    columns = probe.correct(train, labels, test, truth, 3)
    assert set(columns) == {"knn", "linear"}
    for values in columns.values():
        assert values[:3] == [0.0, 0.0, 0.0]
        assert np.mean(values[3:]) > 0.95
