"""Options of the task: which are refused, and which presets and data go together."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.tasks.openvocab import PRESETS, OpenVocabulary, OpenVocabularyConfig


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"data": "ade20k"}, "task.data must be one of embedded, aligned, ade20k-150,"),
        ({"data": "folder", "test_data": "embedded"}, "task.test_data must be one of ade20k-150,"),
        ({"data_path": "there"}, "task.data_path is an option of ade20k-150,"),
        ({"test_data": "voc-20"}, "task.test_data is an option of ade20k-150,"),
        ({"data": "folder", "data_path": ""}, "task.data_path is empty: give a folder, or null for none"),
        (
            {"data": "voc-20", "ignore_index": 0},
            "task.ignore_index is an option of folder alone, but task.data is voc-20",
        ),
        (
            {"data": "aligned", "image_size": 96},
            "task.image_size is an option of embedded alone, but task.data is aligned",
        ),
        ({"data": "aligned", "templates": ["a {}"]}, "task.templates is an option of embedded, ade20k-150,"),
        (
            {"feature_noise": 1.0},
            "task.feature_noise is an option of aligned alone, but task.data is embedded; leave it out, or set its default, 4.3",
        ),
        ({"guidance_widths": (1, 2, 3)}, "leave it out, or set its default, [32, 16, 8]"),
        ({"data": "aligned", "feature_noise": -1.0}, "task.feature_noise must be a number from 0, got -1.0"),
        (
            {"data": "aligned", "guidance_widths": (8, 8)},
            "task.guidance_widths must be three whole numbers from 1, got [8, 8]",
        ),
        ({"data": "aligned", "classes_per_list": 99}, "task.classes_per_list must be at most task.seen_classes, "),
        ({"image_size": 16}, "task.image_size must be a whole number from 32 to 1024, got 16"),
        ({"train_images": None}, "task.train_images must be a whole number of at least 1, got None"),
        (
            {"data": "voc-20", "test_images": 0},
            "task.test_images must be a whole number of at least 1, or null for all, got 0",
        ),
        ({"words_images": -1}, "task.words_images must be a whole number of at least 0, got -1"),
        ({"crop_size": 8}, "task.crop_size must be a whole number of at least 16, got 8"),
        ({"scale": (1.2, 1.1)}, "task.scale must be two numbers from 1, the smaller one first, got [1.2, 1.1]"),
        ({"scale": (0.5, 1)}, "task.scale must be two numbers from 1, the smaller one first, got [0.5, 1]"),
        ({"class_list": "random"}, "task.class_list must be one of drawn, fixed, got 'random'"),
        ({"tokenizer": "words"}, "task.tokenizer must be one of bytes, clip, minilm, got 'words'"),
        ({"templates": ["a photo"]}, "task.templates must hold {} once each, for the name, got 'a photo'"),
        ({"templates": []}, 'task.templates is empty: give at least "{}", the bare name'),
        ({"eval_batch": 1.5}, "task.eval_batch must be a whole number of at least 1, got 1.5"),
        ({"data_seed": 2**32}, "task.data_seed must be a whole number from 0 to 4294967295, got 4294967296"),
        ({"data": "aligned", "data_seed": -1}, "task.data_seed must be a whole number of at least 0, got -1"),
        ({"colours": 99}, "task.colours must be a whole number from 3 to 8, got 99"),
    ],
)
def test_wrong_options_are_named(options: dict, line: str) -> None:
    with pytest.raises(UserError) as error:
        OpenVocabularyConfig(**options)
    assert line in str(error.value)


@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
@pytest.mark.parametrize("data", ["aligned", "coco-stuff", "folder"])
def test_every_preset_takes_other_data(preset: str, data: str) -> None:
    config = dataclasses.replace(PRESETS[preset], data=data, classes_per_list=8, train_images=9, test_images=9)
    assert OpenVocabularyConfig(**dataclasses.asdict(config)) == config  # as a record writes it out


def test_shared_options_say_what_architectures_must_be_built_for() -> None:
    assert PRESETS["paper"].shared_options() == {
        "prompts": 1,
        "class_list": "fixed",
        "crop_size": 384,
        "tokenizer": "clip",
    }
    aligned = OpenVocabularyConfig(data="aligned", prompts=3, grid=12, feature_width=48, classes_per_list=8)
    assert aligned.shared_options() == {
        "prompts": 3,
        "class_list": "drawn",
        "feature_width": 48,
        "resolution": (12, 12),
    }
    assert OpenVocabularyConfig(templates=["imagenet-80", "{}"]).shared_options()["prompts"] == 81


def test_real_data_must_be_given() -> None:
    with pytest.raises(UserError, match=r"task\.data_path is not set: give the folder of coco-stuff"):
        OpenVocabulary(PRESETS["paper"], Path("nowhere")).prepare()
