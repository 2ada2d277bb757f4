"""Which names there are and which of them training sees."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.labelled import Vocabulary
from bench.data.named import SPLITS, NamedSceneSpec
from bench.data.named.words import (
    COLOURS,
    LEFT_OUT_COLOURS,
    LEFT_OUT_SHAPES,
    LEFT_OUT_TEXTURES,
    SHAPES,
    STUFF,
    TEXTURES,
    compose,
)
from bench.errors import UserError

counts = st.tuples(st.integers(2, 3), st.integers(3, 8), st.integers(3, 8))


def words_of(things):
    return [(thing.texture, thing.colour, thing.shape) for thing in things]


@given(counts, st.integers(0, 2**32 - 1))
def test_training_sees_every_word_often_and_every_two_together(counts, seed):
    names = compose(*counts, seed)
    textures, colours, shapes = counts
    assert len(names.seen) + len(names.unseen) == textures * colours * shapes
    assert 0.15 < len(names.unseen) / (textures * colours * shapes) < 0.35
    seen, unseen = words_of(names.seen), words_of(names.unseen)
    assert not set(seen) & set(unseen)
    often = Counter(word for thing in seen for word in thing)
    assert len(often) == sum(counts)
    assert min(often.values()) >= 3
    together = [{pair for thing in things for pair in combinations(thing, 2)} for things in (seen, unseen)]
    assert together[1] <= together[0]


def test_default_names():
    names = NamedSceneSpec().names()
    assert (len(names.seen), len(names.unseen), len(names.word)) == (144, 48, 132)
    assert {Counter(word for thing in words_of(names.unseen) for word in thing)[word] for word in COLOURS} == {6}
    left_out = {*LEFT_OUT_TEXTURES, *LEFT_OUT_COLOURS, *LEFT_OUT_SHAPES}
    assert len(left_out) == 3
    assert all(left_out & set(thing) for thing in words_of(names.word))
    assert not any(left_out & set(thing) for thing in words_of(names.seen + names.unseen))
    assert not left_out & {*TEXTURES, *COLOURS, *SHAPES}
    assert names.seen[0].name.split() == list(words_of(names.seen)[0])


def test_unseen_compositions_stay_what_they_are():
    """Results compare only where the same names are unseen: a change here is a new `NAMED_VERSION`."""
    unseen = [thing.name for thing in NamedSceneSpec().names().unseen]
    assert unseen[:4] == ["plain red table", "plain red dumbbell", "plain yellow box", "plain yellow mushroom"]
    assert unseen != [thing.name for thing in NamedSceneSpec(seed=1).names().unseen]


def test_vocabularies_begin_with_one_another():
    spec = NamedSceneSpec(textures=2, colours=3, shapes=3)
    vocabularies = [spec.vocabulary(split) for split in ("train", "test", "words")]
    assert spec.vocabulary("validation") == vocabularies[0]
    assert [sorted(set(v.groups)) for v in vocabularies] == [["seen"], ["seen", "unseen"], ["seen", "unseen", "word"]]
    for short, long in pairwise(vocabularies):
        assert long.names[: len(short.names)] == short.names
        assert long.groups[: len(short.groups)] == short.groups
        assert "seen" not in long.groups[len(short.groups) :]
    assert vocabularies[0].names[:2] == STUFF
    assert len(vocabularies[2].names) == len(STUFF) + 3 * 4 * 4


@pytest.mark.parametrize(
    ("names", "groups", "complaint"),
    [
        (("a", "b"), ("seen",), "2 names but 1 groups"),
        (("a", "b", "a"), ("seen",) * 3, "names 'a' twice"),
        (("a",), ("known",), "must be one of seen, unseen, word, got 'known'"),
    ],
)
def test_vocabulary_refuses_what_makes_no_sense(names, groups, complaint):
    with pytest.raises(ValueError, match=complaint):
        Vocabulary(names, groups)


@pytest.mark.parametrize(
    ("field", "value"),
    [("image_size", 16), ("words_images", 0), ("textures", 4), ("colours", 2), ("shapes", 9), ("seed", -1)],
)
def test_spec_names_the_bad_field(field, value):
    with pytest.raises(UserError, match=rf"named.{field} must be a whole number from \d+ to \d+, got {value}"):
        NamedSceneSpec(**{field: value})


def test_pictures_have_random_numbers_of_their_own():
    spec = NamedSceneSpec()
    draws = {(split, i): spec.generator(split, i).random() for split in SPLITS for i in range(20)}
    assert len(set(draws.values())) == len(draws)
    assert NamedSceneSpec(train_images=30).generator("train", 7).random() == draws["train", 7]
    assert NamedSceneSpec(seed=1).generator("train", 7).random() != draws["train", 7]
    with pytest.raises(IndexError):
        spec.generator("test", 300)
    with pytest.raises(UserError, match="split must be one of train, validation, test, words, got 'ood'"):
        spec.generator("ood", 0)
