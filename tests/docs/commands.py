"""The commands of the pages that are run here, and how a run is made small."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import config, registry
from tests.docs.calls import Call
from tests.docs.pages import HAS_MAKE, made, shown
from tests.experiment.helpers import Outcome

NOT_RUN = {
    "make test": "is what runs here",
    "make test-all": "is what runs here",
    "make test ARGS=-n 0": "is what runs here",
    "make lint": "changes nothing and takes a minute; .ci/run calls it",
    "make format": "would change the tree under test",
    "make help": "tests/test_makefile.py runs it",
    "make install": "needs a package index; tests/test_makefile.py runs it with a stand-in for Python",
    "make lock": "needs a package index",
    "make lock UPGRADE=1": "needs a package index",
    "bash .ci/run": "runs all of these tests",
    "pip install": "needs a package index",
    "pip install -e .": "needs a package index",
    "pip install isochron[sentences]": "needs a package index",
    "pip install isochron[hydrology]": "needs a package index",
    "apt-get install chromium": "needs a package index",
    "tar tzf": "another project's program, named without a file",
    "python -m bench": "a name without a command",
    "python -m tests.stats.coverage": "simulates for minutes; tests/stats calls its functions",
    "python -m tests.micro.profile_arms": "profiles for a minute",
    "python -m tests.data.named_calibration CACHE_FOLDER": "renders for minutes; another row runs it at a preset",
    "isochron run nvs --set task.fidelity=inception-2048 --set task.fidelity_weights=PATH/TO/weights-inception-2015-12-05-6726825d.pth": (
        "needs Inception's trained weights, whose sum is checked"
    ),
    "isochron check efficient-lvsm --set encoder.name=dinov2-b14 --set align_input=true": "fetches weights, as the page says",
}
"""Commands that cannot run here, each with its reason."""

TIME: dict[str, str] = {"--device": "cpu"}
"""Added to every command that measures."""
QUICK = {"threads": 1, "sentinel.seconds": 0.01, "eval_fractions": "[1.0]"}
FEW: dict[str, dict[str, object]] = {
    "nvs": {"image_size": 32, "train_scenes": 4, "validation_scenes": 1, "test_scenes": 1, "eval_batch": 1},
    "masked-image": {"train_images": 12, "validation_images": 6, "test_images": 6, "eval_batch": 6},
    "hydrology": {"region.years": 4, "region.height": 24, "region.width": 24, "region.catchments": 6, "eval_batch": 64},
    "vos": {
        "image_size": 48,
        "frames": 8,
        "train_clips": 5,
        "validation_clips": 1,
        "test_clips": 5,
        "shifted_clips": 0,
        "eval_batch": 5,
    },
    "tracking": {
        "search_size": 64,
        "frames": 8,
        "train_clips": 5,
        "validation_clips": 1,
        "test_clips": 5,
        "eval_batch": 5,
    },
    "openvocab": {"train_images": 4, "validation_images": 1, "test_images": 1, "words_images": 1},
}
"""Task -> options that make its data few."""
ON_FILES: dict[str, dict[str, object]] = {
    "masked-image": {"probe_images": 0},
    "vos": {"eval_size": 48},
    "openvocab": {"classes_per_list": 3},
}
"""The same, of data from files."""
NOT_OF = {"files": ("shifted_clips", "frames", "words_images", "region."), "aligned": ("words_images",)}
"""How options begin that data from files, or aligned features, do not have."""


def overlaid(call: Call) -> Call:
    """A `run` (or `aa`) as it can be done here: tiny, one step, one seed, little data; what the page sets stays."""
    preset = call.option("--preset")
    source = call.given[0]
    if source.endswith(".yaml"):
        task, of_task, shown_task, pretrained = "nvs", {}, {}, False
    else:
        comparison = config.load(source, preset="tiny")
        of_task, task, pretrained = comparison.task, comparison.task["name"], comparison.pretraining is not None
        shown_task = settled(source, preset) if preset not in (None, "tiny") else {}
    more: dict[str, object] = dict(QUICK)
    sets = dict(call.sets)
    from_files = "task.data_path" in sets
    kind = "files" if from_files else sets.get("task.data", of_task.get("data", ""))
    few = {**FEW[task], **(ON_FILES.get(task, {}) if from_files else {})}
    for key, value in few.items():
        if f"task.{key}" not in sets and not key.startswith(NOT_OF.get(kind, ("-",))):
            more[f"task.{key}"] = value
    if from_files:
        for key in ("data", "perceptual_loss"):
            if key in shown_task and f"task.{key}" not in sets:
                more[f"task.{key}"] = shown_task[key]
    if "arms" not in sets and not source.endswith(".yaml"):  # tests/experiment/test_shipped.py builds every arm
        named = {arm.name: arm.model_dump(mode="json", exclude_defaults=True) for arm in comparison.arms}
        two = sorted(named, key=lambda name: name != comparison.reference_arm)[:2]
        more["arms"] = json.dumps([named[name] for name in two])
        more["reference"] = two[0]
    if pretrained:
        more |= {"pretraining.steps": 1, "pretraining.batch": 1}
        if task == "openvocab" and from_files:
            more["pretraining.task.classes_per_list"] = 3
    options = {**TIME, "--budget": "1 steps", "--seeds": "1", "--out": "made"}
    if "batch" not in sets:
        options["--batch"] = "fixed:1"
    if not source.endswith(".yaml"):
        options["--preset"] = "tiny"
    return call.added(options, more)


def settled(source: str, preset: str | None) -> dict[str, Any]:
    """The task's options under a preset of a shipped comparison."""
    task = config.load(source, preset=preset).task
    made_by = registry.load_object(registry.task(task["name"]).target, "task")
    return {**registry.preset_options(made_by, preset or "tiny"), **task}


SHOWN = [one for one in shown() if one.text not in NOT_RUN and (HAS_MAKE or one.words[0] != "make")]
CALLED = {words: one for one in SHOWN for words in made(one.words)}
"""What the pages' commands come to, each with a command that shows it."""
CALLS = {words: Call.of(words[1:]) for words in CALLED if words[0] == "isochron" and not words[1].startswith("-")}


def calls(name: str, change: Callable[[Call], Call] = lambda call: call) -> list[Any]:
    """The different calls of a command of `isochron`, once `change` was made to each, as parameters of a test."""
    found: dict[Call, str] = {}
    for words, call in CALLS.items():
        if call.name == name:
            found.setdefault(change(call), f"{Path(CALLED[words].page).stem}: {CALLED[words].text}")
    return [pytest.param(call, id=shown_as) for call, shown_as in found.items()]


def good(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome.err
    return outcome
