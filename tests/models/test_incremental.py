"""Views that arrive one by one, as a user of `docs/view-synthesis.md` meets them: nothing waits for, or knows, the future."""

import math

import numpy as np
import pytest
import torch

from baselines.lvsm import LVSMDecoderOnly
from baselines.lvsm_encoder_decoder import LVSMEncoderDecoder
from bench.data.cameras import SceneFrame
from models.efficient_lvsm import EfficientLVSM
from tests.models.helpers import randomise

VIEWS, FIRST, TARGETS, SIZE = 5, 2, 2, 32
"""Views of the stream, how many of them make the frame, targets, and the edge of an image in pixels."""
HERE, THERE = (1.0, 0.0, (0.0, 0.0, 0.0)), (40.0, 70.0, (3e6, -2e6, 5e6))
"""Scale, turn in degrees and place of a world: as cameras were made, and as a survey leaves them, in metres."""
ROUNDING, CHANGE = 2e-6, 1e-3
"""Images in 0..1 that differ by less than the one are equal, by more than the other are not."""


def model_of(cls, **options):
    """A small model, evaluated, with random weights that all matter."""
    return randomise(cls(cls.config_class(width=64, **options))).eval()


@pytest.fixture(scope="module")
def model():
    return model_of(EfficientLVSM, layers=2)


def cameras(angles, world=HERE):
    """Cameras at so many degrees on an arc around a point, looking at it; fp64 [V, 4, 4] OpenCV camera to world."""
    scale, turn, place = world
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    turned = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    poses = []
    for angle in np.radians(angles):
        backward = np.array([math.cos(angle), math.sin(angle), 0.4 + 0.1 * angle])
        forward = -backward / np.linalg.norm(backward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = turned @ np.stack([right, np.cross(forward, right), forward], axis=1)
        pose[:3, 3] = turned @ (scale * 2.5 * backward) + place
        poses.append(pose)
    return np.stack(poses)


class Stream:
    """Five posed pictures in the order of their arrival, and two cameras to be rendered."""

    def __init__(self, world=THERE):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(VIEWS, 3, SIZE, SIZE, generator=generator)
        self.c2w = cameras([0, 25, 50, 75, 100], world)
        self.target_c2w = cameras([10, 40], world)

    @property
    def frozen(self):
        """The frame of the first views."""
        return SceneFrame.of(self.c2w[:FIRST])

    @property
    def published(self):
        """The frame of all cameras, also of those that have not come yet, and of the targets."""
        return SceneFrame.of(np.concatenate([self.c2w, self.target_c2w]))

    def inputs(self, views, frame):
        """Some of the views as `encode` takes them."""
        c2w = torch.from_numpy(frame.apply(self.c2w[views]))[None]
        return {"input_images": self.images[None, views], "input_c2w": c2w, "input_intrinsics": lens(len(views))}

    def targets(self, frame):
        """The cameras to be rendered as `render` takes them."""
        c2w = torch.from_numpy(frame.apply(self.target_c2w))[None]
        return {"target_c2w": c2w, "target_intrinsics": lens(TARGETS)}

    def joint(self, model, views, frame):
        """What the model renders of some of the views at once, [1, Vt, 3, H, W]."""
        with torch.inference_mode():
            return model(**self.inputs(views, frame), **self.targets(frame))["images"]


def lens(views):
    return torch.tensor([SIZE * 1.1, SIZE * 1.1, SIZE / 2, SIZE / 2]).repeat(1, views, 1)


@torch.inference_mode()
def arriving(model, stream, frame):
    """The cache and the rendering after the first views, and after each that arrives."""
    targets = stream.targets(frame)
    cache = model.encode(**stream.inputs(list(range(FIRST)), frame))
    steps = [(cache, model.render(cache, **targets)["images"])]
    for view in range(FIRST, VIEWS):
        cache = cache.append(model.encode(**stream.inputs([view], frame)))
        steps.append((cache, model.render(cache, **targets)["images"]))
    return steps


def assert_equal(ours, theirs, tolerance=ROUNDING):
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


# --- views come and go -------------------------------------------------------------------------------------------------


def test_views_that_arrive_are_as_if_all_had_been_there_at_once(model):
    stream, before = Stream(), None
    for count, (cache, images) in enumerate(arriving(model, stream, stream.frozen), FIRST):
        assert cache.num_views == count
        assert_equal(images, stream.joint(model, list(range(count)), stream.frozen))
        assert before is None or (images - before).abs().max() > CHANGE
        before = images
    assert count == VIEWS


def test_a_view_that_is_removed_was_never_there(model):
    stream = Stream()
    cache, complete = arriving(model, stream, stream.frozen)[-1]
    with torch.inference_mode():
        images = model.render(cache.remove(2), **stream.targets(stream.frozen))["images"]
        again = model.render(cache, **stream.targets(stream.frozen))["images"]
    assert_equal(images, stream.joint(model, [0, 1, 3, 4], stream.frozen))
    assert (images - complete).abs().max() > CHANGE
    assert torch.equal(again, complete)  # a value: the cache from before still holds the view


def test_it_does_not_matter_where_the_world_has_its_origin(model):
    near, far = Stream(HERE), Stream(THERE)
    for (_, here), (_, there) in zip(arriving(model, near, near.frozen), arriving(model, far, far.frozen), strict=True):
        assert_equal(here, there, tolerance=1e-5)


# --- the future is not known ---------------------------------------------------------------------------------------------


def with_another_last_view(stream):
    stream.c2w[-1] = cameras([160], THERE)[0]
    stream.images[-1] = 1 - stream.images[-1]


def with_another_last_target(stream):
    stream.target_c2w[-1] = cameras([-60], THERE)[0]


@pytest.mark.parametrize("change", [with_another_last_view, with_another_last_target])
def test_no_pose_of_the_future_leaks(model, change):
    stream, other = Stream(), Stream()
    change(other)

    def first_target(stream, frame):
        """After each arrival but the last view's."""
        return torch.cat([images[:, 0] for _, images in arriving(model, stream, frame)][:-1])

    assert_equal(first_target(other, other.frozen), first_target(stream, stream.frozen))
    # The published way tells the pose of what is still to come to every view before it.
    assert (first_target(other, other.published) - first_target(stream, stream.published)).abs().max() > CHANGE


# --- families that have no views to add ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "options"),
    [(LVSMDecoderOnly, {"layers": 2}), (LVSMEncoderDecoder, {"encoder_layers": 2, "decoder_layers": 2, "latents": 48})],
)
def test_lvsm_renders_an_encoded_scene_as_at_once(cls, options):
    model, stream = model_of(cls, **options), Stream()
    for count in range(FIRST, VIEWS + 1):
        views = list(range(count))
        with torch.inference_mode():
            scene = model.encode(**stream.inputs(views, stream.frozen))
            images = model.render(scene, **stream.targets(stream.frozen))["images"]
        assert not hasattr(scene, "append")
        assert_equal(images, stream.joint(model, views, stream.frozen))


# --- the page --------------------------------------------------------------------------------------------------------------
