"""The pages on a family of architectures: their examples run, their commands have options that exist, no option is left out."""

from __future__ import annotations

import argparse
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml

from baselines.lvsm import LVSMDecoderOnlyConfig
from baselines.lvsm_encoder_decoder import LVSMEncoderDecoderConfig
from baselines.mae import MAEConfig
from bench import config, registry
from bench.config import Comparison
from bench.experiment import resolve
from bench.tasks.hydrology_config import HydrologyConfig
from bench.tasks.masked_image_config import MaskedImageConfig
from bench.tasks.nvs_config import NVSConfig
from bench.tasks.openvocab_config import OpenVocabularyConfig
from bench.tasks.tracking_config import TrackingConfig
from bench.tasks.vos_config import VOSConfig
from models.catseg import CATSegConfig
from models.crossmae import CrossMAEConfig
from models.efficient_lvsm import EfficientLVSMConfig
from models.hydrology_mae import HydrologyMAEConfig
from models.layers.image_encoder import ImageEncoderConfig
from models.layers.repa import RepaConfig
from models.mixformer import MixFormerCvTConfig
from models.mixformer_vit import MixFormerViTConfig
from models.vos_memory import VOSMemoryConfig
from tests.data.labelled_files import save_folder, save_names, save_set

DOCS = Path(__file__).resolve().parents[1] / "docs"
VIEW_SYNTHESIS, MASKED, VIDEO = "view-synthesis.md", "masked-pretraining.md", "video.md"
OPEN_VOCABULARY, REAL_SEGMENTATION = "open-vocabulary.md", "real-segmentation.md"
OPTIONS = {
    VIEW_SYNTHESIS: (
        EfficientLVSMConfig, LVSMDecoderOnlyConfig, LVSMEncoderDecoderConfig, ImageEncoderConfig, RepaConfig, NVSConfig
    ),
    MASKED: (MAEConfig, CrossMAEConfig, HydrologyMAEConfig, MaskedImageConfig, HydrologyConfig),
    VIDEO: (VOSMemoryConfig, MixFormerCvTConfig, MixFormerViTConfig, VOSConfig, TrackingConfig),
    OPEN_VOCABULARY: (CATSegConfig, OpenVocabularyConfig),
}  # fmt: skip


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", OPTIONS)
def test_the_examples_run(name: str) -> None:
    examples = re.findall(r"```python\n(.*?)```", page(name), re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, name, "exec"), {})


@pytest.mark.parametrize(("name", "options"), [(name, each) for name, found in OPTIONS.items() for each in found])
def test_every_option_stands_on_the_page(name: str, options: type) -> None:
    text = page(name)
    assert not [field.name for field in fields(options) if f"`{field.name}`" not in text]


def commands(name: str) -> list[tuple[str, str]]:
    """``run`` or ``check`` and its arguments, of every such command on the page."""
    text = page(name)
    return re.findall(r"^isochron (run|check) (.+)$", text, re.MULTILINE) + re.findall(
        r"`isochron (run|check) ([^`]+)`", text
    )


def comparison_of(verb: str, line: str) -> Comparison:
    """The comparison of a command, every option of its task and its arms written out and checked."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("source")
    for flag in ("--preset", "--budget", "--out", "--seeds", "--task"):
        parser.add_argument(flag)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args(shlex.split(line, comments=True))
    changes = config.parse_overrides(given.set)
    if verb == "check":
        arms = ({"architecture": given.source, "options": changes},)
        task = {"name": given.task or "nvs", **changes.pop("task", {})}
        content = {"name": "page", "preset": "tiny", "task": task, "arms": arms, "budget": "1s"}
        comparison = config.validate(content, line)
    else:
        for flag in ("budget", "seeds"):
            if (value := getattr(given, flag)) is not None:
                changes[flag] = yaml.safe_load(value)
        comparison = config.load(given.source, preset=given.preset, overrides=changes)
    comparison = resolve.expand(comparison)
    for arm in comparison.arms:
        registry.make_config(resolve.architecture_class(arm), arm.options, arm.name)
    return comparison


@pytest.mark.parametrize("name", OPTIONS)
def test_every_run_and_check_has_options_that_exist(name: str, tmp_path: Path) -> None:
    assert {"run", "check"} == {verb for verb, _ in commands(name)}
    for verb, line in commands(name):
        resolve.make_task(comparison_of(verb, line), tmp_path)


def test_runs_on_real_segmentation_data_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for data, split in (("coco-stuff", "train"), ("ade20k-150", "test")):
        save_set(tmp_path / "datasets", data, split)
    save_folder(tmp_path / "STREETS", 12)
    save_names(tmp_path / "STREETS/classes.txt", [f"thing {number}" for number in range(8)])
    assert len(commands(REAL_SEGMENTATION)) == 2
    for verb, line in commands(REAL_SEGMENTATION):
        task = resolve.make_task(comparison_of(verb, line), tmp_path)
        task.prepare()
        assert task.training_size()
        (told,) = [notice for notice in task.notices if notice.startswith("test: ") and "class names" in notice]
        assert f"test: {task.config.test_data or task.config.data} with" in told


def test_arms_of_equal_flops_have_them() -> None:
    for preset in ("tiny", "small", "paper"):
        comparison = resolve.expand(config.load("mae-image", preset=preset))
        with torch.device("meta"):
            models = {arm.name: resolve.build(arm) for arm in comparison.arms}
            size = comparison.task["image_size"]
            batch = {"images": torch.empty(1, 3, size, size)}
        decoders = {name: model.decode_flops(batch) for name, model in models.items()}
        assert decoders["crossmae-equal-flops"] == pytest.approx(decoders["mae"], rel=0.03)
        assert decoders["crossmae-equal-depth"] < 0.7 * decoders["mae"]
