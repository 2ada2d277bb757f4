import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from models.layers.sliding_window import SlidingWindow, SlidingWindowSegmenter

CONFIG = {"height": 23, "width": 31, "kernel": 12, "stride": 8, "out_res": 28}


def resize(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def published(image, mean, std, weight, bias, *, height, width, kernel, stride, out_res):
    """The inference of the reference sheet, with unfold and fold."""
    size = [out_res] * 2 if isinstance(out_res, int) else list(out_res)
    columns = F.unfold(resize(image[None], size), kernel, stride=stride)  # [1, 3 K K, N]
    crops = columns[0].T.unflatten(1, (3, kernel, kernel))
    crops = torch.cat([crops, resize(image[None], (kernel, kernel))])
    crops = (crops - mean[:, None, None]) / std[:, None, None]
    probabilities = torch.sigmoid(torch.einsum("nchw,tc->nthw", crops, weight[:, :, 0, 0]) + bias[:, None, None])
    ones = F.unfold(torch.ones(1, 1, *size), kernel, stride=stride)
    cover = F.fold(ones, size, kernel, stride=stride)
    windows = F.fold(probabilities[:-1].flatten(1).T[None], size, kernel, stride=stride) / cover
    return resize((windows + resize(probabilities[-1:], size)) / 2, (height, width))[0]


def inputs(height=37, width=53, classes=5):
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(3, height, width, generator=generator) * 255,
        "pixel_mean": torch.tensor([120.0, 110.0, 100.0]),
        "pixel_std": torch.tensor([60.0, 55.0, 50.0]),
        "weight": torch.randn(classes, 3, 1, 1, generator=generator),
        "bias": torch.randn(classes, generator=generator),
    }


@pytest.mark.parametrize("changes", [{}, {"out_res": [20, 36]}, {"stride": 12, "out_res": [24, 36]}])
def test_equals_the_published_inference(changes):
    config, given_ = CONFIG | changes, inputs()
    expected = published(*given_.values(), **config)
    model = SlidingWindowSegmenter.from_reference({}, **config)
    torch.testing.assert_close(model(**given_)["probabilities"], expected, atol=1e-6, rtol=0)

    weights = {name: given_.pop(name) for name in ("weight", "bias")}
    model = SlidingWindowSegmenter.from_reference(weights, **config)
    torch.testing.assert_close(model(**given_)["probabilities"], expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="weight must be given"):
        SlidingWindowSegmenter.from_reference({}, **config)(**given_)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_res": 30}, "got 30: try 28"),
        ({"kernel": 0}, "kernel must be an integer >= 1"),
        ({"height": 0}, "height must be an integer >= 1"),
        ({"stride": 16}, "stride must be at most the kernel 12, .* got 16: try 12"),
        ({"out_res": "large"}, "out_res must be an edge"),
        ({"out_res": [28, 0]}, r"out_res must be an edge or .* got \[28, 0\]"),
        ({"crop": 12}, "unknown option 'crop'"),
    ],
)
def test_refuses_what_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        SlidingWindowSegmenter.from_reference({}, **(CONFIG | changes))


def test_refuses_other_weights():
    with pytest.raises(ValueError, match="weight and bias, or nothing"):
        SlidingWindowSegmenter.from_reference({"weight": torch.ones(1)}, **CONFIG)


@settings(deadline=None, max_examples=10)
@given(
    st.integers(2, 9).flatmap(lambda kernel: st.tuples(st.just(kernel), st.integers(1, kernel))),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(1, 4),
)
def test_chunks_of_classes_change_nothing_and_every_pixel_is_seen(shape, rows, columns, chunk):
    kernel, stride = shape
    windows = SlidingWindow(kernel, stride, (kernel + rows * stride, kernel + columns * stride))
    assert windows.cut(torch.rand(2, 3, 11, 7)).shape == (2 * windows.count, 3, kernel, kernel)
    logits = torch.randn(2 * windows.count, 4, 2, 2)
    (whole,) = windows.merge(logits, (11, 7))
    torch.testing.assert_close(torch.cat(list(windows.merge(logits, (11, 7), chunk)), dim=1), whole, atol=1e-6, rtol=0)
    (flat,) = windows.merge(torch.full_like(logits, 0.7), (11, 7))
    torch.testing.assert_close(flat, torch.full_like(flat, 0.7).sigmoid())


def test_pictures_of_a_batch_stay_apart():
    windows, pictures = SlidingWindow(6, 4, (10, 14)), torch.rand(2, 3, 9, 15)
    (both,) = windows.merge(windows.cut(pictures), (9, 15))
    for picture, expected in zip(pictures, both, strict=True):
        (alone,) = windows.merge(windows.cut(picture[None]), (9, 15))
        torch.testing.assert_close(alone[0], expected)


def test_the_global_window_alone_is_the_squashed_picture():
    windows, picture = SlidingWindow(8, 4, (8, 8)), torch.rand(1, 3, 9, 15)
    assert (windows.count, windows.corners) == (1, [])
    logits = 9 * torch.randn(1, 2, 4, 4)
    (found,) = windows.merge(logits, (20, 10))
    torch.testing.assert_close(found, resize(logits.sigmoid(), (20, 10)))  # of the logits as they are, not enlarged
    (found,) = windows.merge(windows.cut(picture), (20, 10))
    torch.testing.assert_close(found, resize(resize(picture, (8, 8)).sigmoid(), (20, 10)))
