"""Masks: exact counts, the shapes that their names promise, and choices that hang on the draw alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.tasks import hydrology_masks as masks

PATCHES = 7


def draws(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def visible(kinds, lengths, kept=2, unified=False, longest=12, seed=0) -> np.ndarray:
    lengths = np.asarray(lengths)
    return masks.visible_patches(
        draws(len(lengths), seed), kinds, lengths, PATCHES, kept, longest=longest, unified=unified
    )


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["per-day", "tube", "block"]),
    st.lists(st.integers(1, 12), min_size=1, max_size=6),
    st.integers(1, PATCHES - 1),
    st.integers(0, 1000),
)
def test_every_kind_keeps_as_many_tokens_as_the_length_alone_says(kind, lengths, kept, seed) -> None:
    shown = visible((kind,), lengths, kept, seed=seed)
    assert shown.shape == (len(lengths), 1, max(lengths), PATCHES)
    assert shown.sum(axis=(2, 3))[:, 0].tolist() == [length * kept for length in lengths]
    behind = np.arange(max(lengths)) >= np.array(lengths)[:, None]
    assert not shown[:, 0][behind].any()


def test_per_day_masks_keep_so_many_every_day_and_others_on_other_days() -> None:
    shown = visible(("per-day",), [12] * 20)[:, 0]
    assert (shown.sum(axis=-1) == 2).all()
    assert (shown[:, 1:] != shown[:, :-1]).any(axis=-1).mean() > 0.8


def test_a_tube_is_the_same_all_days() -> None:
    shown = visible(("tube",), [12, 9, 12])[:, 0]
    assert (shown[0] == shown[0, :1]).all()
    assert (shown[1, :9] == shown[1, :1]).all()
    assert (shown[0, 0] != shown[2, 0]).any()


def test_a_block_hides_consecutive_days_whole_but_for_its_last() -> None:
    starts = set()
    for sample in visible(("block",), [12] * 60)[:, 0]:
        counts = sample.sum(axis=-1)
        # 12 days of 7 patches with 2 kept: 60 are hidden, 8 days and 4 patches of a ninth.
        assert sorted(counts.tolist()) == [0] * 8 + [3] + [PATCHES] * 3
        first = int(np.argmax(counts == 0))
        assert (counts[first : first + 8] == 0).all()
        assert counts[first + 8] == 3
        starts.add(first)
    assert starts == {0, 1, 2, 3}


def test_unified_masks_are_one_pattern_for_a_kind() -> None:
    shared = visible(("per-day", "tube", "per-day"), [12] * 4, unified=True)
    np.testing.assert_array_equal(shared[:, 0], shared[:, 2])
    apart = visible(("per-day", "tube", "per-day"), [12] * 4)
    assert (apart[:, 0] != apart[:, 2]).any(axis=(1, 2)).all()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["days", "block"]), st.lists(st.integers(4, 12), min_size=1, max_size=6), st.integers(0, 1000))
def test_series_show_exactly_so_many_days(kind, lengths, seed) -> None:
    lengths = np.array(lengths)
    kept = lengths // 4
    shown = masks.visible_days(draws(len(lengths), seed), kind, lengths, kept, 3, longest=12, unified=False)
    assert (shown.sum(axis=-1) == kept[:, None]).all()
    assert not shown[np.broadcast_to((np.arange(shown.shape[-1]) >= lengths[:, None])[:, None], shown.shape)].any()


def test_a_block_of_days_may_lie_anywhere_and_series_differ_unless_unified() -> None:
    lengths, kept = np.full(80, 12), np.full(80, 3)
    shown = masks.visible_days(draws(80), "block", lengths, kept, 2, longest=12, unified=False)
    hidden = ~shown[:, 0]
    assert (np.abs(np.diff(hidden, axis=1)).sum(axis=1) <= 2).all()
    assert set(hidden.argmax(axis=1).tolist()) == {0, 1, 2, 3}
    assert (shown[:, 0] != shown[:, 1]).any()
    unified = masks.visible_days(draws(80), "block", lengths, kept, 2, longest=12, unified=True)
    np.testing.assert_array_equal(unified[:, 0], unified[:, 1])


@pytest.mark.parametrize("kind", ["per-day", "tube", "block"])
def test_a_sample_is_masked_alike_in_every_batch(kind) -> None:
    lengths, seeds = np.array([12, 5, 9]), draws(3)
    together = masks.visible_patches(seeds, (kind,), lengths, PATCHES, 2, longest=12, unified=False)
    there = np.broadcast_to(np.arange(12)[:, None] < lengths[:, None, None, None], together.shape)
    numbers = masks.tokens(seeds, 1, together, there, 12)
    for sample in range(3):
        own = slice(sample, sample + 1)
        alone = masks.visible_patches(seeds[own], (kind,), lengths[own], PATCHES, 2, longest=12, unified=False)
        np.testing.assert_array_equal(alone[0], together[sample, :, : lengths[sample]])
        found = masks.tokens(seeds[own], 1, alone, None, 12)
        for one, many in zip(found, numbers, strict=True):
            np.testing.assert_array_equal(one[0, 0], many[sample, 0, : one.shape[-1]])
            assert (many[sample, 0, one.shape[-1] :] == -1).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 1000))
def test_tokens_are_either_visible_predicted_or_not_there(samples, days, seed) -> None:
    generator = np.random.default_rng(seed)
    shown, there = generator.random((2, samples, 2, days, PATCHES)) < 0.5
    found = masks.tokens(draws(samples, seed), 1, shown, there, days)
    for sample in range(samples):
        for place in range(2):
            seen, hidden = (number[sample, place] for number in found)
            flat, present = shown[sample, place].ravel(), there[sample, place].ravel()
            assert seen[seen >= 0].tolist() == np.flatnonzero(flat & present).tolist()
            assert sorted(hidden[hidden >= 0].tolist()) == np.flatnonzero(~flat & present).tolist()
            for number in (seen, hidden):
                assert (np.diff((number < 0).astype(int)) >= 0).all(), "padding stands at the end"


def test_predicted_tokens_come_in_random_order() -> None:
    shown = visible(("tube",), [12] * 30)
    predicted = masks.tokens(draws(30), 1, shown, None, 12).predicted[:, 0]
    assert (np.diff(predicted, axis=1) < 0).mean() > 0.3
    # Whatever is left out of the end of it is a fair sample of days.
    assert abs((predicted[:, :20] // PATCHES).mean() - 5.5) < 0.6


def test_lengths_are_uniform_and_a_sample_never_lacks_all_modalities() -> None:
    lengths = masks.window_lengths(draws(4000), 8, 12)
    assert set(lengths.tolist()) == {8, 9, 10, 11, 12}
    assert np.bincount(lengths)[8:].min() > 700
    present = masks.present_modalities(draws(4000), 3, 0.6)
    assert present.any(axis=1).all()
    # Each is missing with probability 0.6, but for a third of the 0.6^3 that would lack all.
    assert abs((~present).mean() - (0.6 - 0.6**3 / 3)) < 0.02
    assert masks.present_modalities(draws(50), 3, 0.0).all()
