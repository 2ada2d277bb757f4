"""RealEstate10K: which clips and views are used, what is counted, and that both layouts give the same."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data.images import decode
from bench.data.re10k import (
    RE10KSplit,
    SceneRules,
    convert,
    open_re10k,
    read_evaluation_index,
)
from bench.data.re10k.chunks import Chunks
from bench.data.re10k.evaluation import equal_to_inputs, spread_inputs
from bench.errors import UserError
from tests.data.re10k_data import CHUNK, clip, jpeg, write_evaluation, write_split

SHAPE = (36, 64)
RULES = SceneRules(shape=SHAPE)


@pytest.fixture(scope="module")
def root(tmp_path_factory: Any) -> Path:
    """Train: clips of 30, 60 and 27 usable frames, 26 and 9 too short, and one for every rule. Test: three clips."""
    root = tmp_path_factory.mktemp("re10k")
    still = clip("still", 30, step=0.0)
    long = [clip("c30", 30), clip("b60", 60, scene=1), clip("d27", 27, scene=2)]
    broken = [clip("wide", 30, focal=0.4), still, clip("other-size", 30, (40, 64)), clip("26", 26), clip("9", 9)]
    write_split(root / "train", long, broken)
    write_split(root / "test", [clip("t1", 60), clip("t2", 50, scene=3)], [clip("t0", 40, scene=4)])
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: Any) -> Path:
    return tmp_path_factory.mktemp("cache")


def open_small(root: Path, split: str, cache: Path, **options: Any) -> RE10KSplit:
    options = {"rules": RULES, "validation_scenes": 0, "image_size": 32} | options
    return open_re10k(root, split, cache_dir=cache, **options)


@pytest.fixture(scope="module")
def train(root: Path, cache: Path) -> RE10KSplit:
    return open_small(root, "train", cache)


def draws(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def names(split: RE10KSplit) -> list[str]:
    return [split.sample_name(scene, 0).split("/")[0] for scene in range(len(split))]


# --- which clips --------------------------------------------------------------------------------------------------


def test_clips_that_break_a_rule_are_left_out_and_counted(train: RE10KSplit) -> None:
    assert names(train) == ["b60", "c30", "d27"]
    assert train.excluded == {
        "not of 36 x 64 pixels": 1,
        "field of view above 100 degrees": 1,
        "camera stands still (baseline below 0.001)": 1,
        "no more than 26 frames": 2,
    }
    assert train.notices[0].startswith("RealEstate10K train: 3 scenes; left out: ")


def test_rules_can_be_switched_off_and_gaps_changed(root: Path, cache: Path) -> None:
    free = open_small(root, "train", cache, rules=SceneRules(None, None, None), min_gap=9)
    assert names(free) == ["26", "b60", "c30", "d27", "other-size", "still", "wide"]
    assert free.excluded == {"no more than 10 frames": 1}


def test_published_rules_are_the_default(root: Path, cache: Path) -> None:
    with pytest.raises(UserError, match=r"all left out, 8 not of 360 x 640 pixels; set task\.scene_rules: none"):
        open_small(root, "train", cache, rules=None)


def test_the_field_of_view_is_that_of_the_cameras(root: Path, cache: Path) -> None:
    scenes = {scene.key: scene for scene in Chunks(root / "train", cache).index.scenes}
    assert scenes["b60"].max_fov == pytest.approx(90, abs=1e-4)
    assert scenes["wide"].max_fov == pytest.approx(2 * np.degrees(np.arctan(0.5 / 0.4)), abs=1e-4)
    assert scenes["b60"].extent == pytest.approx(59 * 0.03 * 5**0.5, rel=1e-4)


def test_validation_scenes_are_held_out_of_training(root: Path, cache: Path) -> None:
    rest, held = (open_small(root, split, cache, validation_scenes=1) for split in ("train", "validation"))
    assert len(held) == 1
    assert sorted(names(rest) + names(held)) == ["b60", "c30", "d27"]
    with pytest.raises(UserError, match="validation_scenes must leave some of the 3 training scenes, got 3"):
        open_small(root, "train", cache, validation_scenes=3)


def test_what_is_missing_is_named(root: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent/train holds neither index\.json"):
        open_small(tmp_path / "absent", "train", cache)
    with pytest.raises(UserError, match="split must be one of train, validation, test, got 'ood'"):
        open_small(root, "ood", cache)
    with pytest.raises(UserError, match="evaluation_index belongs to the split test"):
        open_small(root, "train", cache, evaluation_index=tmp_path / "x.json")
    with pytest.raises(UserError, match=r"min_gap must be from 1 to max_gap \(9\), got 10"):
        open_small(root, "train", cache, min_gap=10, max_gap=9)


# --- which views --------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1), st.integers(1, 8), st.integers(1, 18), st.integers(0, 2))
def test_views_are_as_lvsm_draws_them(train: RE10KSplit, draw: int, inputs: int, targets: int, scene: int) -> None:
    first, second = train.choose(np.array([scene]), np.array([draw], np.uint64), inputs, targets)
    assert first.shape == (1, inputs)
    assert second.shape == (1, targets)
    chosen = [*first[0].tolist(), *second[0].tolist()]
    assert len(set(chosen)) == inputs + targets
    frames = (60, 30, 27)[scene]
    left = first[0, 0]
    right = first[0, 1] if inputs > 1 else train.choose(np.array([scene]), np.array([draw], np.uint64), 2, 1)[0][0, 1]
    assert 0 <= left < right < frames
    assert 25 <= right - left <= frames - 1
    assert all(left < view < right for view in [*first[0, 2:], *second[0]])


def test_gap_start_and_targets_are_uniform(train: RE10KSplit) -> None:
    count = 20_000
    inputs, targets = train.choose(np.zeros(count, int), draws(count), 2, 3)
    gap = inputs[:, 1] - inputs[:, 0]
    share = np.bincount(gap, minlength=60)[25:] / count
    assert len(share) == 35  # 25 .. 59
    assert np.abs(share - 1 / 35).max() < 6 * (1 / 35 / count) ** 0.5
    starts = np.bincount(inputs[gap == 50, 0], minlength=10) / (gap == 50).sum()
    assert len(starts) == 10
    assert starts.min() > 0.06
    assert starts.max() < 0.14
    place = (targets - inputs[:, :1])[gap == 25] - 1
    assert np.bincount(place.ravel(), minlength=24).min() > 0.6 * place.size / 24


def test_the_largest_gap_is_kept_to(root: Path, cache: Path) -> None:
    split = open_small(root, "train", cache, max_gap=30)
    inputs, targets = split.choose(np.zeros(500, int), draws(500), 2, 24)
    assert set(inputs[:, 1] - inputs[:, 0]) == set(range(25, 31))
    assert (np.sort(targets, axis=1)[:, 1:] != np.sort(targets, axis=1)[:, :-1]).all()


def test_ends_that_coincide_are_drawn_again(tmp_path: Path) -> None:
    """A camera that waits for 50 frames and then walks: pairs of the first 50 frames have no baseline."""
    waits, step = clip("waits", 80), clip("walks", 80)["cameras"]
    waits["cameras"][:, 6:] = step[:1, 6:]
    waits["cameras"][50:, 6:] = step[50:, 6:]
    write_split(tmp_path / "train", [waits, clip("walks", 80)])
    free, kept = (
        open_small(tmp_path, "train", tmp_path / "cache", max_gap=26, rules=rules)
        for rules in (SceneRules(None, None, None), RULES)
    )
    scenes, all_draws = np.zeros(2000, int), draws(2000)
    (before, _), (after, targets) = (split.choose(scenes, all_draws, 2, 3) for split in (free, kept))
    still = before[:, 1] < 50
    assert 0.3 < still.mean() < 0.6
    assert (after[:, 1] < 50).mean() < 0.01, "each of 8 tries fails in less than one of two cases"
    assert np.array_equal(after[~still], before[~still]), "a pair that is good is kept"
    assert ((targets > after[:, :1]) & (targets < after[:, 1:])).all()
    alone = np.concatenate([kept.choose(scenes[:1], all_draws[[n]], 2, 3)[0] for n in range(50)])
    assert np.array_equal(alone, after[:50])
    ones = np.ones(2000, int)
    assert np.array_equal(kept.choose(ones, all_draws, 2, 3)[0], free.choose(ones, all_draws, 2, 3)[0])


def test_a_sample_depends_on_its_draw_alone(train: RE10KSplit) -> None:
    scenes, all_draws = np.arange(30) % 3, draws(30)
    inputs, targets = train.choose(scenes, all_draws, 3, 4)
    for sample in range(30):
        alone = train.choose(scenes[[sample]], all_draws[[sample]], 3, 4)
        assert np.array_equal(alone[0][0], inputs[sample])
        assert np.array_equal(alone[1][0], targets[sample])
    assert len({tuple(row) for row in inputs.tolist()}) > 20


def test_targets_and_first_inputs_stay_when_more_inputs_join(train: RE10KSplit) -> None:
    scenes, all_draws = np.zeros(50, int), draws(50)
    two, targets = train.choose(scenes, all_draws, 2, 6)
    eight, same = train.choose(scenes, all_draws, 8, 6)
    assert np.array_equal(eight[:, :2], two)
    assert np.array_equal(same, targets)


def test_more_views_than_fit_are_refused(train: RE10KSplit) -> None:
    train.choose(np.array([2]), draws(1), 2, 24)
    with pytest.raises(UserError, match=r"20 targets and 6 further inputs do not fit the 24 frames between"):
        train.choose(np.array([2]), draws(1), 8, 20)


# --- images and poses ---------------------------------------------------------------------------------------------


def test_views_come_with_their_cameras(root: Path, cache: Path) -> None:
    split = open_small(root, "train", cache, image_size=24)
    views = split.load(np.array([0, 2]), np.array([[0, 7], [26, 3]]))
    assert views.rgb.shape == (2, 2, 24, 24, 3)
    assert views.rgb.dtype == np.uint8
    assert views.c2w.dtype == views.intrinsics.dtype == np.float32
    w2c = np.eye(4)
    w2c[:3] = clip("b60", 60)["cameras"][7, 6:].reshape(3, 4).numpy()
    assert np.allclose(views.c2w[0, 1], np.linalg.inv(w2c), atol=1e-6)
    assert np.allclose(views.c2w[0, 1, :3, 3], [7 * 0.03, 0.01, 7 * 0.06], atol=1e-6)
    # 36 x 64 -> 24 x 40, cut at 8
    assert np.allclose(views.intrinsics[0, 0], [0.5 * 40, 0.5 * 16 / 9 * 24, 0.5 * 40 - 8, 12], atol=1e-5)


def test_both_layouts_give_the_same_samples(root: Path, cache: Path, tmp_path: Path) -> None:
    convert(root, tmp_path, "train")
    chunks, tree = open_small(root, "train", cache), open_small(tmp_path, "train", cache)
    assert chunks.excluded == tree.excluded
    scenes = np.arange(len(chunks))
    chosen = [np.concatenate(split.choose(scenes, draws(3), 2, 3), axis=1) for split in (chunks, tree)]
    assert np.array_equal(*chosen)
    assert chunks.sample_name(1, chosen[0][1, 3]) == tree.sample_name(1, chosen[1][1, 3])
    one, other = (split.load(scenes, chosen[0]) for split in (chunks, tree))
    assert np.array_equal(one.rgb, other.rgb)
    assert np.array_equal(one.c2w, other.c2w)
    assert np.allclose(one.intrinsics, other.intrinsics, rtol=1e-6)


def test_published_size_is_resized_and_cropped_as_published(tmp_path: Path) -> None:
    write_split(tmp_path / "test", [clip("x", 27, (360, 640))])
    split = open_re10k(tmp_path, "test", image_size=256, cache_dir=tmp_path / "cache")
    views = split.load(np.array([0]), np.array([[5]]))
    whole = Image.fromarray(decode(jpeg((360, 640), 5))).resize((456, 256), Image.Resampling.LANCZOS)
    assert np.array_equal(views.rgb[0, 0], np.asarray(whole)[:, 100:356])
    assert np.allclose(views.intrinsics[0, 0], [228, 0.5 * 16 / 9 * 256, 128, 128], rtol=1e-6)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    broken = clip("x", 30)
    broken["images"][4] = torch.cat([broken["images"][4][:200], broken["images"][4][-2:]])
    write_split(tmp_path / "train", [broken])
    split = open_small(tmp_path, "train", tmp_path / "cache")
    with pytest.raises(UserError, match=rf"frame 4 of scene x in .*{CHUNK} cannot be decoded"):
        split.load(np.array([0]), np.array([[3, 4]]))
    with pytest.raises(IndexError, match="views must be from 0 to 29"):
        split.load(np.array([0]), np.array([[3, 30]]))


def test_images_that_were_cut_short_are_found_at_once_and_move_no_other(tmp_path: Path) -> None:
    hurt, png = clip("hurt", 40), clip("png", 30)
    hurt["images"][0] = torch.zeros(0, dtype=torch.uint8)
    hurt["images"][4] = hurt["images"][4][:-1]
    buffer = io.BytesIO()
    Image.new("RGB", (64, 36)).save(buffer, "PNG")
    png["images"] = [torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)] * 30
    write_split(tmp_path / "train", [hurt, png, clip("whole", 30), clip("none", 1) | {"images": hurt["images"][:1]}])
    split = open_small(tmp_path, "train", tmp_path / "cache")
    assert names(split) == ["hurt", "png", "whole"]
    assert split.notices == ("RealEstate10K train: 3 scenes; left out: 2 damaged images of 1 of these scenes",)
    assert [split.sample_name(0, view) for view in (0, 2, 3)] == ["hurt/00001", "hurt/00003", "hurt/00005"]
    views = split.load(np.array([0]), np.array([[3]]))
    assert np.allclose(views.c2w[0, 0, :3, 3], [5 * 0.03, 0.01, 5 * 0.06], atol=1e-6), "frame 5 has its own camera"
    # As in the converted tree.
    convert(tmp_path, tmp_path / "tree", "train")
    tree = open_small(tmp_path / "tree", "train", tmp_path / "cache")
    assert (names(tree), tree.notices) == (names(split), split.notices)


def test_files_that_a_tree_lacks_are_named_at_once(root: Path, cache: Path, tmp_path: Path) -> None:
    convert(root, tmp_path, "train")
    (tmp_path / "train/images/b60/00041.png").unlink()
    with pytest.raises(UserError, match=r"images/b60/00041\.png is missing; convert the data again"):
        open_small(tmp_path, "train", cache)
    (tmp_path / "train/full_list.txt").unlink()
    with pytest.raises(UserError, match=r"the conversion is unfinished .*run `isochron convert-re10k` again"):
        open_small(tmp_path, "train", cache)


def test_a_fingerprint_tells_data_apart_wherever_they_lie(root: Path, cache: Path, tmp_path: Path) -> None:
    train = open_small(root, "train", cache)
    shutil.copytree(root, tmp_path / "moved")
    assert open_small(tmp_path / "moved", "train", tmp_path / "cache").fingerprint == train.fingerprint
    assert open_small(root, "train", cache, rules=SceneRules(None, None, None)).fingerprint != train.fingerprint
    one = write_evaluation(tmp_path / "one.json", t2=([2, 48], [3, 10, 30]))
    two = write_evaluation(tmp_path / "two.json", t2=([2, 48], [3, 10, 31]))
    scored = [open_small(root, "test", cache, evaluation_index=path).fingerprint for path in (one, two, one)]
    assert scored[0] == scored[2] != scored[1]
    other = [clip("b60", 60, scene=1, step=0.031), clip("c30", 30), clip("d27", 27, scene=2)]
    same = [clip("b60", 60, scene=1), *other[1:]]
    for name, chunk in (("other", other), ("same", same)):
        write_split(tmp_path / name / "train", chunk)
    found = [open_small(tmp_path / name, "train", cache).fingerprint for name in ("other", "same")]
    assert found[0] != found[1], "one camera path differs"


def test_a_split_travels_to_other_processes_without_its_images(train: RE10KSplit) -> None:
    train.load(np.array([0]), np.array([[0]]))
    copy = pickle.loads(pickle.dumps(train))
    where = np.array([1]), np.array([[2, 20]])
    assert np.array_equal(copy.load(*where).rgb, train.load(*where).rgb)


# --- the evaluation index -----------------------------------------------------------------------------------------


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    return write_evaluation(
        tmp_path / "evaluation.json",
        t2=([2, 48], [2, 10, 30]),
        nothing=None,
        t0=([0, 30], [5, 6, 7]),
        absent=([1, 50], [4, 5, 6]),
        t1=([10, 60], [20, 30, 40]),
        nothing_either=None,
    )


def test_scenes_are_scored_in_the_order_of_the_file_and_the_rest_is_counted(
    root: Path, cache: Path, evaluation: Path
) -> None:
    split = open_small(root, "test", cache, evaluation_index=evaluation, rules=None)
    assert names(split) == ["t2", "t0"]  # t1 has no frame 60
    assert split.excluded == {"not in the data": 1, "frames missing in the data": 1}
    inputs, targets = split.choose_evaluation(np.array([1, 0]), 2, 3)
    assert inputs.tolist() == [[0, 30], [2, 48]]
    assert targets.tolist() == [[5, 6, 7], [2, 10, 30]]
    assert split.choose_evaluation(np.array([1]), 2, 8)[1].tolist() == [[5, 6, 7]]
    assert split.choose_evaluation(np.array([1]), 2, 2)[1].tolist() == [[5, 6]]
    assert split.sample_name(0, 10) == "t2/00010"
    assert split.notices == (
        "RealEstate10K test: 2 scenes of evaluation.json (neither published copy); left out: 2 null, 1 not in the data, "
        "1 frames missing in the data",
    )


def test_more_inputs_are_spread_evenly_and_leak_more(root: Path, cache: Path, evaluation: Path) -> None:
    split = open_small(root, "test", cache, evaluation_index=evaluation)
    inputs, targets = split.choose_evaluation(np.array([0, 1]), 4, 3)
    assert inputs.tolist() == [[2, 17, 33, 48], [0, 10, 20, 30]]
    everything = split.choose_evaluation(np.array([1]), 31, 3)[0]
    assert everything.tolist() == [list(range(31))]
    assert equal_to_inputs(inputs, targets).tolist() == [[True, False, False], [False, False, False]]
    assert equal_to_inputs(everything, targets[1:]).all()
    assert split.choose_evaluation(np.array([1]), 1, 3)[0].tolist() == [[0]]
    with pytest.raises(UserError, match="32 inputs do not fit the 31 frames from context to context"):
        split.choose_evaluation(np.array([1]), 32, 3)


def test_scenes_with_leaking_targets_are_left_out_on_request(root: Path, cache: Path, evaluation: Path) -> None:
    split = open_small(root, "test", cache, evaluation_index=evaluation, clean_for=(2, 4))
    assert names(split) == ["t0"]
    assert split.excluded["with a target among 2 inputs"] == 1
    assert "1 with a target among 2 inputs" in split.notices[0]
    assert split.choose_evaluation(np.array([0]), 2, 3)[1].tolist() == [[5, 6, 7]]
    with pytest.raises(UserError, match="1 with a target among 2 inputs, 1 with a target among 31 inputs"):
        open_small(root, "test", cache, evaluation_index=evaluation, clean_for=(2, 31))


@given(st.integers(0, 100), st.integers(1, 150), st.data())
def test_spread_inputs_are_distinct_and_keep_their_ends(left: int, gap: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, gap + 1))
    (row,) = spread_inputs(np.array([[left, left + gap]]), count)
    assert (row[0], row[-1]) == (left, left + gap)
    assert (np.diff(row) > 0).all()


def test_the_published_copies_are_told_apart(tmp_path: Path) -> None:
    for targets, copy in [
        ([42, 51, 74], "pixelSplat's and LVSM's"),
        ([48, 55, 66], "Efficient-LVSM's"),
        ([1, 2, 3], "neither published"),
    ]:
        path = write_evaluation(tmp_path / "index.json", **{"00e8df74b6805da7": ([40, 90], targets)})
        assert read_evaluation_index(path).copy == copy


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": {"context": [1, 2, 3], "target": [1]}}, "scene a must be null or two contexts and targets"),
        ({"a": {"context": [3, 3], "target": [3]}}, "scene a must be"),
        ({"a": {"context": [1, 9], "target": []}}, "scene a must be"),
        ({"a": {"context": [1, 9], "target": [-1]}}, "scene a must be"),
        ({"a": {"context": [1, 9.5], "target": [2]}}, "scene a must be"),
        ({"a": {"target": [2]}}, "scene a must be"),
        ({"a": 3}, "scene a must be"),
        ([1], "must be an object of scenes, got list"),
        ({"a": None}, "got no scene with frames"),
        (
            {"a": {"context": [1, 9], "target": [2]}, "b": {"context": [1, 9], "target": [2, 3]}},
            "got 1 to 2 targets a scene",
        ),
    ],
)
def test_an_evaluation_index_of_another_form_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_evaluation_index(tmp_path / "index.json")
    with pytest.raises(UserError, match=r"none\.json cannot be read"):
        read_evaluation_index(tmp_path / "none.json")


def test_an_index_of_other_data_is_an_error(root: Path, cache: Path, tmp_path: Path) -> None:
    path = write_evaluation(tmp_path / "index.json", q=([0, 30], [1]), r=([0, 30], [1]))
    with pytest.raises(UserError, match=r"no scene for the split test: all left out, 2 not in the data$"):
        open_small(root, "test", cache, evaluation_index=path)


def test_without_an_index_the_views_of_a_scene_are_fixed(root: Path, cache: Path, tmp_path: Path) -> None:
    split = open_small(root, "test", cache)
    inputs, targets = split.choose_evaluation(np.array([0, 1, 2]), 2, 4)
    alone = split.choose_evaluation(np.array([1]), 2, 4)
    assert np.array_equal(alone[0][0], inputs[1])
    assert not equal_to_inputs(inputs, targets).any()
    # They belong to the clip, not to its number.
    fewer = write_split(tmp_path / "test", [clip("t1", 60)]).parent
    assert np.array_equal(open_small(fewer, "test", cache).choose_evaluation(np.array([0]), 2, 4)[0][0], inputs[1])


def test_the_first_image_of_a_clip_may_be_broken(tmp_path: Path) -> None:
    broken = clip("x", 30)
    broken["images"][0] = torch.zeros(5, dtype=torch.uint8)
    write_split(tmp_path / "test", [broken])
    path = write_evaluation(tmp_path / "index.json", x=([1, 29], [5, 6, 7]))
    split = open_small(tmp_path, "test", tmp_path / "cache", evaluation_index=path)
    assert split.load(np.array([0]), np.array([[1, 5]])).rgb.shape == (1, 2, 32, 32, 3)
