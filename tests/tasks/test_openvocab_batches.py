"""Samples: lists of classes, labels that follow them, crops, and batches that are made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.crops import flips
from bench.data.draws import Salt, stream
from bench.data.labelled import VOID, Vocabulary
from bench.tasks import openvocab_batches as batches
from bench.tasks.openvocab import OpenVocabulary, OpenVocabularyConfig
from bench.tasks.openvocab_lists import Prompts, asked, draw_list, list_keys, present_in, relabel
from tests.tasks.openvocab_data import COLOURS, Nothing, Tiles, numbers
from tests.tasks.test_openvocab import CPU, batch_of, make


def drawn(pool: np.ndarray, present: np.ndarray, length: int, draw: int) -> np.ndarray:
    ((keys,), (order,)) = list_keys(np.array([draw], np.uint64), len(pool), length)
    return draw_list(pool, present, keys, order)


def cut(config: OpenVocabularyConfig, data: Tiles, draw: int) -> tuple[np.ndarray, np.ndarray]:
    draws = np.array([draw], np.uint64)
    return batches.crop(config, data.image(0), data.labels(0), stream(draws, Salt.TASK_CROP, 3)[0], flips(draws)[0])


@settings(max_examples=80, deadline=None)
@given(
    pool=st.sets(st.integers(0, 99), min_size=1, max_size=30),
    present=st.sets(st.integers(0, 99), max_size=30),
    share=st.floats(0, 1),
    draw=st.integers(0, 2**64 - 1),
)
def test_a_list_has_every_present_class_that_fits_and_none_twice(pool, present, share, draw) -> None:
    known, seen = (np.array(sorted(classes), np.int64) for classes in (pool, present))
    length = 1 + int(share * (len(pool) - 1))
    chosen = drawn(known, seen, length, draw)
    assert len(set(chosen.tolist())) == len(chosen) == length
    assert set(chosen.tolist()) <= pool
    assert len(present & pool & set(chosen.tolist())) == min(length, len(present & pool))


def test_lists_are_in_random_order_and_choose_evenly() -> None:
    pool, present = np.arange(10), np.array([2, 7])
    lists = np.stack([drawn(pool, present, 5, draw) for draw in range(2000)])
    places = (lists == 7).argmax(1)
    assert np.abs(np.bincount(places, minlength=5) / 2000 - 0.2).max() < 0.04
    others = np.bincount(lists.ravel(), minlength=10)[[0, 1, 3, 4, 5, 6, 8, 9]] / 2000
    assert np.abs(others - 3 / 8).max() < 0.05
    crowded = np.stack([drawn(pool, pool, 5, draw) for draw in range(2000)])
    assert np.abs(np.bincount(crowded.ravel()) / 2000 - 0.5).max() < 0.05


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(12)), st.integers(1, 12), st.integers(0, 2**32))
def test_labels_follow_the_list(order: list[int], length: int, seed: int) -> None:
    chosen = np.array(order[:length])
    labels = np.random.default_rng(seed).integers(0, 13, (5, 7)).astype(np.uint16)
    labels[labels == 12] = VOID
    found = relabel(labels, chosen)
    listed = np.isin(labels, chosen)
    assert (chosen[found[listed]] == labels[listed]).all()
    assert (found[~listed] == VOID).all()
    assert set(present_in(labels)) == set(labels.ravel().tolist())


def test_splits_are_asked_for_what_they_may_know() -> None:
    vocabulary = Vocabulary(("a", "b", "c", "d"), ("word", "seen", "unseen", "seen"))
    assert [asked(vocabulary, split).tolist() for split in ("train", "validation", "test", "words")] == [
        [1, 3],
        [1, 2, 3],
        [1, 2, 3],
        [0, 1, 2, 3],
    ]


def test_prompts_wrap_the_first_of_several_names() -> None:
    config = OpenVocabularyConfig(templates=("a {}", "{} here"), text_length=9)
    ids = Prompts(config).ids(["cat", "dog, hound"])
    texts = [[bytes(filter(None, prompt)).decode() for prompt in prompts] for prompts in ids.tolist()]
    assert texts == [["a cat", "cat here"], ["a dog", "dog here"]]
    eighty = Prompts(OpenVocabularyConfig(templates=("imagenet-80",), text_length=60)).ids(["cat"])
    assert eighty.shape == (1, 80, 60)
    assert len({tuple(row) for row in eighty[0].tolist()}) == 80


def test_pixels_have_the_colour_of_the_name_that_they_are_labelled_with() -> None:
    task = make({"void": True}, classes_per_list=4, crop_size=24)
    batch = batch_of(task, 9)
    classes = numbers(batch["names"])
    assert all(len(set(row)) == 4 for row in classes.tolist())
    listed = batch["labels"] != VOID
    assert 0.3 < listed.float().mean() < 0.9
    pixels = (batch["image"] * 255).round().long().movedim(1, -1)
    named = classes.gather(1, batch["labels"].where(listed, 0).flatten(1)).view_as(listed)
    assert torch.equal(pixels[listed], torch.from_numpy(COLOURS)[named[listed]])
    absent = pixels[~listed]
    for row, image in zip(classes, batch["image"], strict=True):
        present = {tuple(colour) for colour in (image * 255).round().long().flatten(1).T.tolist()}
        assert len(present & {tuple(colour) for colour in COLOURS[row].tolist()}) == min(4, len(present - {(77,) * 3}))
    assert (absent == 77).all(1).any()


def test_crops_keep_labels_on_their_pixels_and_vary() -> None:
    config = OpenVocabularyConfig(crop_size=24, scale=(1, 1.5))
    data = Tiles("train", sizes=((90, 60),))
    starts = set()
    for draw in range(40):
        image, labels = cut(config, data, draw)
        assert image.shape == (24, 24, 3)
        right = np.abs(image.astype(int) - COLOURS[labels]).max(-1) < 8
        assert right.mean() > 0.7  # all but the edges, where colours mix
        starts.add(image[::6, ::6].tobytes())
    assert len(starts) > 30


def test_a_crop_of_the_size_of_the_picture_is_the_picture_mirrored_or_not() -> None:
    config, data = OpenVocabularyConfig(crop_size=24, scale=(1, 1)), Tiles("train")
    mirrored = 0
    for draw in range(64):
        image, labels = cut(config, data, draw)
        turned = not np.array_equal(image, data.image(0))
        mirrored += turned
        assert np.array_equal(image[:, :: -1 if turned else 1], data.image(0))
        assert np.array_equal(labels[:, :: -1 if turned else 1], data.labels(0))
    assert 16 < mirrored < 48


@pytest.mark.parametrize("options", [{}, {"class_list": "fixed"}, {"data": "aligned", "grid": 4, "prompts": 2}])
def test_samples_do_not_depend_on_their_batch_and_worst_cases_look_like_them(options: dict) -> None:
    sizes = {} if "data" in options else {"crop_size": 24, "scale": (1, 1.2), "text_length": 8}
    config = OpenVocabularyConfig(**{"classes_per_list": 4, **sizes, **options})
    task = OpenVocabulary(config, Path("nowhere"), Tiles)
    draws = np.arange(5, dtype=np.uint64) * 31
    together = task.collate(np.arange(5), draws)
    alone = task.collate(np.array([3]), draws[3:4])
    made = task.worst_case(5)
    assert list(together) == list(made)
    for name, value in together.items():
        assert torch.equal(alone[name][0], value[3])
        assert (made[name].shape, made[name].dtype) == (value.shape, value.dtype)
    assert not torch.equal(together["labels"][0], task.collate(np.arange(5), draws + np.uint64(1))["labels"][0])
    assert set(task.input_fields) | set(task.target_fields) == set(together)


def test_a_fixed_list_is_that_of_training_for_all() -> None:
    task = make(class_list="fixed")
    for batch in (batch_of(task), task.transfer(task.synthetic(4, 3), CPU)):
        assert batch["names"].shape[1] == 6
        assert torch.equal(batch["names"], batch["names"][:1].expand_as(batch["names"]))
    assert numbers(batch_of(task)["names"])[0].tolist() == list(range(6))
    first, second = (task.synthetic(2, seed) for seed in (0, 1))
    assert torch.equal(first["names"], second["names"])
    assert not torch.equal(first["image"], second["image"])


def test_edge_cases_are_degenerate_and_can_be_learned_from() -> None:
    task, model = make(), Nothing(0.5)
    cases = task.edge_cases(3)
    assert (cases["all void"]["labels"] == VOID).all()
    assert (cases["one class everywhere"]["labels"] == 0).all()
    for name, host in cases.items():
        batch = task.transfer(host, CPU)
        loss = task.loss(model(batch["image"], batch["names"]), batch)
        (gradient,) = torch.autograd.grad(loss, model.value)
        assert loss.isfinite(), name
        assert gradient.abs() > 0, name
