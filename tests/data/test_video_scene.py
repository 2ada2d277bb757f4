"""Clips keep their rules: exact masks and boxes, and factors that do what they say."""

from __future__ import annotations

import dataclasses
import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.video.layers import BODY_SCALE
from bench.data.video.render import Clip, make_clip, tight_boxes
from bench.data.video.scene import HIDDEN, SEEN, SHOWN, TARGET_AREA, Scene, largest, least_area, sample_scene
from bench.data.video.sheet import SEEN as SHEET_COLOURS
from bench.data.video.sheet import contact_sheet
from bench.data.video.spec import FACTORS, HARD, SPLITS, VideoSpec, shard_ranges
from bench.data.video.textures import TILE
from bench.errors import UserError

SPEC = VideoSpec(test_clips=15, shifted_clips=15, validation_clips=15)


def only(factor: str, **changes) -> VideoSpec:
    return dataclasses.replace(SPEC, factors=(factor,), **changes)


@pytest.fixture(scope="module")
def clips() -> dict[str, list[Clip]]:
    """Three test clips of each factor."""
    made: dict[str, list[Clip]] = {}
    for number in range(15):
        made.setdefault(SPEC.clip_factors("test", number)[0], []).append(make_clip(SPEC, "test", number))
    return made


def shares(clip: Clip) -> np.ndarray:
    return clip.areas[..., 0] / np.maximum(clip.areas[..., 1], 1)


def depth_map(scene: Scene, frame: int, size: int) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Nearest body (-1 none, -2 bar), each body's inside and what is too close to an outline to say, in polar coordinates."""
    y, x = np.meshgrid(*2 * [(np.arange(size) + 0.5) / size], indexing="ij")
    owner, doubt, insides = np.full((size, size), -1), np.zeros((size, size), bool), [np.empty(0)] * len(scene.bodies)
    for number in scene.order:
        body = scene.bodies[number]
        across, down = x - body.x[frame], y - body.y[frame]
        turn = np.arctan2(body.sine[frame], body.cosine[frame])
        theta = np.arctan2(down, across) - turn
        edge = np.ones_like(theta)
        for harmonic, (even, odd) in zip((2, 3, 4), body.waves[frame], strict=True):
            edge += even * np.cos(harmonic * theta) + odd * np.sin(harmonic * theta)
        margin = edge * body.radius[frame] - np.hypot(across, down)
        insides[number] = margin > 0
        owner[margin > 0] = number
        doubt |= np.abs(margin) < 1e-5
    if scene.bar:
        margin = scene.bar.width / 2 - np.abs((x if scene.bar.upright else y) - scene.bar.middle[frame])
        owner[margin > 0] = -2
        doubt |= np.abs(margin) < 1e-5
    return owner, insides, doubt


@pytest.mark.parametrize("number", range(5))
def test_masks_are_the_nearest_thing_at_pixel_centres(number):
    scene, _ = sample_scene(SPEC, "test", number)
    clip = make_clip(SPEC, "test", number)
    for frame in range(SPEC.frames):
        owner, insides, doubt = depth_map(scene, frame, SPEC.image_size)
        assert doubt.mean() < 0.01
        expected = np.where((owner >= 0) & (owner < SPEC.objects), owner + 1, 0)
        np.testing.assert_array_equal(clip.masks[frame][~doubt], expected[~doubt])
        for target in range(SPEC.objects):
            bits = clip.amodal[frame] >> target & 1 == 1
            np.testing.assert_array_equal(bits[~doubt], insides[target][~doubt])


@pytest.mark.parametrize("number", [0, 3, 6])
def test_colours_are_those_of_the_nearest_thing(number):
    """Where targets lie over each other, at pixels whose neighbours belong to the same one."""
    scene, _ = sample_scene(SPEC, "test", number)
    clip = make_clip(SPEC, "test", number)
    place = (np.arange(SPEC.image_size) + 0.5) / SPEC.image_size
    differences = []
    for target, body in enumerate(scene.bodies[: SPEC.objects]):
        mine = clip.masks == target + 1
        for shift, axis in ((1, 1), (-1, 1), (1, 2), (-1, 2)):
            mine = mine & (np.roll(clip.masks, shift, axis) == target + 1)
        frame, i, j = np.nonzero(mine & (clip.amodal == 3))
        across, down = place[j] - body.x[frame], place[i] - body.y[frame]
        u = (body.cosine[frame] * across + body.sine[frame] * down) / body.radius[frame]
        v = (body.cosine[frame] * down - body.sine[frame] * across) / body.radius[frame]
        texels = [np.floor((w * BODY_SCALE + 0.5) * TILE).astype(int) % TILE for w in (v, u)]
        expected = body.colours[frame, body.texture.tile[tuple(texels)]].astype(int)
        differences.append(np.abs(clip.rgb[frame, i, j] - expected))
    assert len(np.concatenate(differences)) > 30
    assert np.median(np.concatenate(differences)) < 12


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    split=st.sampled_from(SPLITS),
    objects=st.integers(1, 3),
    frames=st.integers(8, 12),
    factor=st.sampled_from(FACTORS),
    late=st.booleans(),
)
def test_masks_boxes_and_areas_agree(seed, split, objects, frames, factor, late):
    spec = VideoSpec(
        image_size=32,
        frames=frames,
        objects=objects,
        factors=(factor,),
        distractors=1,
        late_objects=float(late and objects > 1),
        seed=seed,
    )
    clip = make_clip(spec, split, 0)
    assert set(np.unique(clip.masks)) <= {*range(objects + 1), 255}
    for target in range(objects):
        whole, seen = clip.amodal >> target & 1 == 1, clip.masks == target + 1
        start = clip.start[target]
        assert whole[seen].all(), "a target is seen only where it is"
        np.testing.assert_array_equal(clip.areas[:, target, 1], whole.sum(axis=(1, 2)))
        np.testing.assert_array_equal(clip.areas[start:, target, 0], seen[start:].sum(axis=(1, 2)))
        assert not seen[:start].any()
        assert (clip.areas[:start, target, 0] < least_area(spec)).all()
        assert clip.areas[start, target, 0] >= least_area(spec)
        for box, mask in zip(clip.boxes[:, target], whole, strict=True):
            if not mask.any():
                assert np.isnan(box).all()
                continue
            x, y, w, h = box.astype(int)
            inside = mask[y : y + h, x : x + w]
            assert inside.sum() == mask.sum()
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()
    void = clip.masks == 255
    if late and objects > 1:
        assert clip.start[-1] > 0
        assert clip.areas[0, -1, 1] == 0, "a late target is outside at first"
        assert not void[clip.start[-1] :].any()
        assert (clip.start[:-1] == 0).all()
    else:
        assert not clip.start.any()
        assert not void.any()


def test_tight_boxes_of_hand_made_masks():
    masks = np.zeros((2, 5, 7), bool)
    masks[0, 1:3, 4] = masks[0, 2, 6] = True
    np.testing.assert_array_equal(tight_boxes(masks), [[4, 1, 3, 2], [np.nan] * 4])


def test_the_largest_is_told_by_its_first_frame():
    assert largest(np.array([[5, 9, 9], [6, 1, 1]])) == 1


def test_targets_are_large_when_their_mask_is_given(clips):
    for clip in (clip for several in clips.values() for clip in several):
        assert (clip.areas[0, :, 0] >= TARGET_AREA * SPEC.image_size**2).all()


def test_occlusion_hides_the_largest_target_for_as_long_as_asked_and_shows_it_again(clips):
    longer = only("occlusion", frames=14, occlusion_frames=5)
    for clip, length in [*((c, 2) for c in clips["occlusion"]), *((make_clip(longer, "test", n), 5) for n in range(3))]:
        share = shares(clip)[:, largest(clip.areas[..., 1].T)]
        hidden = np.flatnonzero(share < HIDDEN)
        assert len(hidden) >= length
        assert share[0] > SHOWN
        assert (share[hidden[-1] :] > SHOWN).any()


@pytest.mark.parametrize("factor", ["plain", "distractors", "drift"])
def test_nothing_is_lost_without_the_bar(clips, factor):
    assert all(shares(clip).min() >= SEEN for clip in clips[factor])


def test_static_has_a_still_background_and_hides_nothing(clips):
    def background_change(clip: Clip) -> float:
        never = ~clip.amodal.any(axis=0)
        return float(np.abs(np.diff(clip.rgb.astype(float), axis=0)).mean(axis=(0, 3))[never].mean())

    sensor = 255 * 0.02 * 2 / np.pi**0.5  # mean of the absolute difference of two normal numbers
    for clip in clips["static"]:
        assert (shares(clip) == 1).all()
        assert background_change(clip) == pytest.approx(sensor, rel=0.1)
    assert all(background_change(clip) > 1.5 * sensor for clip in clips["plain"])


def centre_colours(number: int, spec: VideoSpec) -> np.ndarray:
    """[O, F, 3] colour about each target's centre, NaN where it is hidden: the pattern is fixed to the body."""
    scene, _ = sample_scene(spec, "test", number)
    clip = make_clip(spec, "test", number)
    found = np.full((spec.objects, spec.frames, 3), np.nan)
    for target, body in enumerate(scene.bodies[: spec.objects]):
        for t in range(spec.frames):
            i, j = int(body.y[t] * spec.image_size), int(body.x[t] * spec.image_size)
            if (clip.masks[t, i - 1 : i + 2, j - 1 : j + 2] == target + 1).all():
                found[target, t] = clip.rgb[t, i - 1 : i + 2, j - 1 : j + 2].mean(axis=(0, 1))
    return found


def test_drift_changes_colours_and_nothing_else_does():
    def change(spec: VideoSpec) -> float:
        return float(
            np.mean(
                [
                    np.abs(colours[seen[-1]] - colours[seen[0]]).max()
                    for number in range(4)
                    for colours in centre_colours(number, spec)
                    if len(seen := np.flatnonzero(~np.isnan(colours[:, 0]))) > 5
                ]
            )
        )

    still, drifting = change(only("plain")), change(only("drift"))
    assert still < 25, "a target's own pattern moves with it"
    assert drifting > 2 * still
    assert drifting > 50


def test_without_a_rate_nothing_drifts():
    plain, drift = (sample_scene(only(f, drift_rate=0.0), "test", 1)[0] for f in ("plain", "drift"))
    for one, two in zip(plain.bodies, drift.bodies, strict=True):
        np.testing.assert_array_equal(one.colours, two.colours)
        np.testing.assert_array_equal(one.radius, two.radius)
    assert (sample_scene(only("drift"), "test", 1)[0].bodies[0].colours[0] == plain.bodies[0].colours[0]).all()


def test_distractors_look_alike_and_are_no_targets():
    spec = only("distractors", distractors=3)
    scene, _ = sample_scene(spec, "test", 0)
    assert len(scene.bodies) == 5
    assert (scene.bodies[0].colours != scene.bodies[1].colours).mean() > 0.5, "targets are told apart by colour"
    for number in range(2, 5):
        like = scene.bodies[number % 2]
        np.testing.assert_array_equal(scene.bodies[number].colours, like.colours)
        assert (scene.bodies[number].texture.tile != like.texture.tile).mean() > 0.9
    assert make_clip(spec, "test", 0).masks.max() == 2


def test_splits_share_no_clip_and_shifted_no_texture():
    assert len({int(SPEC.draw(split, number)) for split in SPLITS for number in range(15)}) == 60
    ranges = sorted(SPEC.describe(split)["seeds"] for split in SPLITS)
    assert all(one[1] <= two[0] for one, two in pairwise(ranges))
    for split in SPLITS:
        scene, _ = sample_scene(SPEC, split, 2)
        things = (scene.ground, *scene.layers())
        assert {thing.texture.shifted for thing in things} == {split == "shifted"}


def test_factors_take_turns_and_training_mixes_them():
    for split in ("validation", "test", "shifted"):
        assert [SPEC.clip_factors(split, n) for n in range(7)] == [(f,) for f in (*FACTORS, *FACTORS[:2])]
    found = {SPEC.clip_factors("train", number) for number in range(200)}
    assert found >= {("plain",), ("static",), HARD, ("occlusion",)}
    assert {only("static").clip_factors("train", n) for n in range(9)} == {("static",)}
    assert {only("drift").clip_factors("train", n) for n in range(9)} == {("drift",)}


def test_jpeg_changes_frames_a_little_and_masks_not():
    clear, packed = (make_clip(only("plain", jpeg_quality=quality), "test", 0) for quality in (0, 90))
    np.testing.assert_array_equal(clear.masks, packed.masks)
    difference = np.abs(clear.rgb.astype(int) - packed.rgb).mean()
    assert 0.5 < difference < 12


def test_golden_clips():
    """Same bytes on every machine: a change of these digests needs a new `VIDEO_VERSION`."""
    digests = {}
    for split, number in (("train", 0), ("test", 1), ("test", 2), ("shifted", 3)):
        clip = make_clip(VideoSpec(late_objects=0.5), split, number)
        digest = hashlib.sha256()
        for field in dataclasses.fields(clip):
            values = getattr(clip, field.name)
            digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
        digests[f"{split}-{number}"] = digest.hexdigest()[:16]
    assert digests == GOLDEN


GOLDEN = {
    "train-0": "a37d594cadb84010",
    "test-1": "d799f112280f5642",
    "test-2": "9b79377d3d06cdf1",
    "shifted-3": "a6d5ee95f3436fd8",
}


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("image_size", 16, "whole number from 32"),
        ("frames", 3, "whole number from 4"),
        ("objects", 5, "from 1 to 4"),
        ("seed", True, "whole number"),
        ("test_clips", 0, "from 1"),
        ("drift_rate", -1.0, "number from 0 to 2"),
        ("drift_rate", "fast", "number from 0 to 2"),
        ("late_objects", 1.5, "number from 0 to 1"),
        ("factors", ("plain", "rain"), "different names of plain, distractors"),
        ("factors", ("plain", "plain"), "different names"),
        ("occlusion_frames", 5, "at most frames - 6 = 4, got 5"),
    ],
)
def test_spec_names_the_bad_field(field, value, complaint):
    with pytest.raises(UserError, match=rf"video.{field} .*{complaint}"):
        VideoSpec(**{field: value})


def test_late_objects_need_two():
    with pytest.raises(UserError, match=r"video\.late_objects needs objects >= 2"):
        VideoSpec(objects=1, late_objects=0.5)


def test_too_much_in_one_picture_is_an_error(monkeypatch):
    monkeypatch.setattr("bench.data.video.scene.ATTEMPTS", 2)
    monkeypatch.setattr("bench.data.video.scene.SEEN", 1.1)
    with pytest.raises(UserError, match=r"no clip with 2 objects.*plain kept the rules in 2 tries; ask for fewer"):
        make_clip(only("plain"), "test", 0)


def test_clips_outside_the_split_are_refused():
    with pytest.raises(IndexError, match="clip 15 is not in test, which has 15"):
        make_clip(SPEC, "test", 15)
    assert [len(r) for r in shard_ranges(SPEC, "train")] == [25] * 24


def test_the_sheet_shows_each_factor_and_dims_what_is_hidden():
    sheet = contact_sheet().reshape(6, 2, 64, 5 * 64, 3)
    dim = np.array(SHEET_COLOURS[:2]) // 2
    hidden = {factor: (sheet[row, 1][:, :, None] == dim).all(axis=-1).any() for row, factor in enumerate(FACTORS)}
    assert hidden["occlusion"]
    assert not hidden["plain"], "a target in front of another is drawn as seen"
    assert not hidden["static"]
