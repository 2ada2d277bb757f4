"""What frozen features know: k nearest neighbours and a linear classifier, both without a choice to make by hand.

Deterministic, in fp64, a second or less for a few thousand features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.contracts import Metric

NEIGHBOURS = 20
TEMPERATURE = 0.07
"""Of the neighbours' votes exp(cosine / temperature), as Wu et al. (2018) and the self-supervised literature after it."""
PENALTIES = tuple(10.0**exponent for exponent in range(-4, 4))
"""Ridge penalties tried, times the number of training features; the best leave-one-out error wins."""

KNN = Metric(
    "knn",
    f"{NEIGHBOURS}-NN accuracy",
    higher_is_better=True,
    digits=3,
    note=f"frozen features of whole images, cosine, {NEIGHBOURS} neighbours, temperature {TEMPERATURE}; final evaluation only",
)
LINEAR = Metric(
    "linear",
    "linear-probe accuracy",
    higher_is_better=True,
    digits=3,
    note="frozen features of whole images, standardised; ridge regression on the classes, its penalty chosen by leave-one-out "
    "error on the training features; final evaluation only",
)


def nearest_neighbours(train: Tensor, labels: Tensor, test: Tensor, classes: int) -> Tensor:
    """Class of each test feature by the weighted vote of its nearest training features.

    Args:
        train: [N, E].
        labels: [N] int64 in 0 .. classes - 1.
        test: [M, E].
        classes: how many there are.

    Returns:
        [M] int64.
    """
    train, test = (torch.nn.functional.normalize(features.double(), dim=1) for features in (train, test))
    chosen = []
    for part in test.split(1024):
        cosine, index = (part @ train.T).topk(min(NEIGHBOURS, len(train)), dim=1)
        votes = ((cosine - 1) / TEMPERATURE).exp()
        near = labels[index]
        # What each neighbour's class gets; not by scatter_add_, whose order of summation on a GPU is another every time.
        total = ((near[:, :, None] == near[:, None]) * votes[:, None]).sum(2)
        chosen.append(near.where(total == total.amax(1, keepdim=True), classes).amin(1))  # of several, the first class
    return torch.cat(chosen)


def linear_classifier(train: Tensor, labels: Tensor, test: Tensor, classes: int) -> Tensor:
    """Class of each test feature by ridge regression on one-hot classes; arguments and result as `nearest_neighbours`."""
    train, test = train.double(), test.double()
    mean, scale = train.mean(0), train.std(0, correction=0)
    # A feature that never changes says nothing, and its deviation is rounding.
    scale = torch.where(scale > 1e-9 * train.abs().amax().clamp_min(1e-12), scale, torch.inf)
    x, x_test = (train - mean) / scale, (test - mean) / scale
    y = torch.nn.functional.one_hot(labels, classes).to(x)
    offset = y.mean(0)
    y = y - offset
    values, vectors = torch.linalg.eigh(x.T @ x)
    values, rotated = values.clamp_min(0), x @ vectors
    moments, best = rotated.T @ y, (torch.inf, None)
    for penalty in PENALTIES:
        weights = moments / (values + penalty * len(x))[:, None]
        leverage = (rotated.square() / (values + penalty * len(x))).sum(1, keepdim=True) + 1 / len(x)
        error = float(((y - rotated @ weights) / (1 - leverage).clamp_min(1e-9)).square().mean())
        if error < best[0]:
            best = (error, weights)
    return (x_test @ vectors @ best[1] + offset).argmax(1)


PROBES = {KNN.name: nearest_neighbours, LINEAR.name: linear_classifier}
"""Metric -> what predicts a class."""


def correct(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, classes: int
) -> dict[str, list[float]]:
    """For each of `PROBES` 1 or 0 for every test feature, whether its class was told.

    Training features without a class (label below 0) are left out; such a test feature is never right.
    """
    known = train_labels >= 0
    train, train_labels = train[known], train_labels[known]
    return {
        name: (predict(train, train_labels, test, classes) == test_labels).double().tolist()
        for name, predict in PROBES.items()
    }
