"""Every command that the documentation shows does what it says there, on little data."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import config, registry
from bench.config import Comparison
from bench.data.video.spec import VideoSpec
from bench.experiment import scaling
from bench.experiment.scaling.curves import read_curves
from bench.store.scaling import QualityCurve, QualityPoint
from tests.docs import places
from tests.docs.calls import Call
from tests.docs.pages import HAS_MAKE, PAGES, ROOT, command, fenced, made, shown
from tests.experiment.helpers import Outcome

NOT_RUN = {
    "make test": "is what runs here",
    "make test ARGS=-m 'not slow'": "is what runs here",
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
    "nvs": {"train_scenes": 4, "validation_scenes": 1, "test_scenes": 1, "eval_batch": 1},
    "masked-image": {"train_images": 12, "validation_images": 6, "test_images": 6, "eval_batch": 6},
    "hydrology": {"region.years": 4, "region.height": 24, "region.width": 24, "region.catchments": 6, "eval_batch": 64},
    "vos": {"train_clips": 5, "validation_clips": 1, "test_clips": 5, "shifted_clips": 0, "eval_batch": 5},
    "tracking": {"train_clips": 5, "validation_clips": 1, "test_clips": 5, "eval_batch": 5},
    "openvocab": {"train_images": 4, "validation_images": 1, "test_images": 1, "words_images": 1},
}
"""Task -> options that make its data few."""
ON_FILES: dict[str, dict[str, object]] = {
    "masked-image": {"probe_images": 0},
    "vos": {"eval_size": 48},
    "openvocab": {"classes_per_list": 3},
}
"""The same, of data from files."""
NOT_OF = {"files": ("shifted_clips", "words_images", "region."), "aligned": ("words_images",)}
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


RULES = {
    "run", "plan", "check", "aa", "measure-efficiency", "paper-tables", "claims", "report", "bundle", "compare", "verify",
    "scaling-curve", "tables", "tokens", "replay", "parity", "list", "seeds",
}  # fmt: skip
"""Commands of `isochron` that a test below runs wherever a page shows them."""
MODULES = {"tests.data.named_calibration", "tests.data.video_calibration"}


def test_every_command_on_a_page_is_run_or_says_why_not() -> None:
    bare = []
    for words, one in CALLED.items():
        known = {
            "isochron": words[1] in RULES or words[1:] == ("--help",),
            "pytest": "tests/micro" in words,
            "python": words[1] == "-m" and words[2] in MODULES,
        }
        if not known.get(words[0], False):
            bare.append(f"{one.page}: {one.text}")
    assert not bare, f"no test runs these; add a rule, or a reason to NOT_RUN: {bare}"


def test_what_is_not_run_still_stands_on_a_page() -> None:
    assert set(NOT_RUN) <= {one.text for one in shown()}
    assert {
        place
        for place in (*places.DATA, *places.FILES)
        if not any(place in word.split("=") for one in CALLED for word in one)
    } <= {"results"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_block_holds_commands_alone_or_none(page: Path) -> None:
    for block in fenced(page):
        told = [bool(command(line)) for line in block]
        assert all(told) or not any(told), "\n".join(block)


def good(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.mark.parametrize("call", calls("run", lambda call: call.added({"--device": "cpu"})) + calls("plan"))
def test_a_run_is_planned_as_it_is_shown(call: Call, called: Callable[..., Outcome]) -> None:
    """Preset, budget and every option as on the page."""
    said = good(called(["plan", *call.words[1:]])).out
    resolved = config.from_text(said.partition("The resolved configuration:")[2])
    assert resolved.preset == (call.option("--preset") or resolved.preset)
    if asked := call.option("--seeds"):
        assert len(resolved.seeds) == int(asked)
    if asked := call.option("--budget"):
        assert resolved.budget == config.BudgetConfig.model_validate(asked)


@pytest.mark.parametrize("call", calls("run", overlaid))
def test_a_run_makes_its_table(call: Call, called: Callable[..., Outcome], tmp_path: Path) -> None:
    good(called(call.words))
    made = {path.name for path in (tmp_path / "made").iterdir()}
    assert {"table.md", "table.csv", "table.tex", "curves.png", "ledger.pdf", "manifest.json"} <= made
    stored = config.load(tmp_path / "made" / "comparison.yaml").model_dump(mode="json")
    for key, value in call.sets:  # what the page sets has reached the run
        if key.startswith("task.") and key.count(".") == 1 and value not in places.DATA:
            assert stored["task"][key[5:]] == config.parse_overrides([f"{key}={value}"])["task"][key[5:]], key


@pytest.mark.parametrize("call", calls("check"))
def test_an_architecture_is_checked(call: Call, called: Callable[..., Outcome]) -> None:
    words = ["lvsm-encoder-decoder" if word == "NAME" else word for word in call.words]
    assert "FAIL" not in good(called(words)).out


@pytest.mark.parametrize(
    "call", calls("aa", lambda call: overlaid(call).added({"--repetitions": "1", "--seeds": "2", "--out": "made"}))
)
def test_equals_are_held_against_one_another(call: Call, called: Callable[..., Outcome]) -> None:
    assert "of 1" in good(called(call.words)).out


@pytest.mark.parametrize("call", calls("measure-efficiency", lambda call: call.added({"--out": "made", **TIME})))
def test_costs_are_measured_and_their_tables_set(call: Call, called: Callable[..., Outcome], tmp_path: Path) -> None:
    good(called(call.words))
    (layout,) = (lines for lines in fenced(ROOT / "docs" / "efficiency.md") if lines[0].startswith("runs/"))
    for line in layout[1:]:
        assert (tmp_path / "made" / line.split()[0]).exists(), line
    assert (tmp_path / "made/paper/tables.md").stat().st_size > 0


@pytest.mark.parametrize("call", calls("paper-tables"))
def test_tables_are_set_beside_the_published_ones(call: Call, called: Callable[..., Outcome], tmp_path: Path) -> None:
    for name in ("nvs-tiny", "efficiency-nvs-tiny"):
        places.FILES[f"results/cpu-2core/{name}"](tmp_path / "results/cpu-2core" / name)
    said = good(called(call.words)).out
    written = [Path(line.partition(": ")[2]) for line in said.splitlines()]
    assert written
    assert all((folder / "tables.md").is_file() for folder in written)
    assert {folder.parts[0] for folder in written} == {
        call.option("--out") or Path((*call.given, "results")[0]).parts[0]
    }


@pytest.mark.parametrize("call", calls("claims"))
def test_claims_are_judged(call: Call, called: Callable[..., Outcome], tmp_path: Path) -> None:
    places.FILES["results/cpu-2core/nvs-tiny"](tmp_path / "results/cpu-2core/nvs-tiny")
    good(called(call.words))
    out = tmp_path / (call.option("--out") or "results/claims")
    assert {"claims.md", "claims.csv", "claims.tex"} <= {path.name for path in out.iterdir()}


@pytest.mark.parametrize("call", calls("report"))
def test_the_page_is_written(call: Call, called: Callable[..., Outcome], tmp_path: Path) -> None:
    places.FILES["results/cpu-2core/nvs-tiny"](tmp_path / "results/cpu-2core/nvs-tiny")
    good(called(call.words))
    assert "nvs-tiny" in (tmp_path / (call.option("--out") or "report.html")).read_text()


@pytest.mark.parametrize("call", calls("bundle"))
def test_results_are_packed(call: Call, called: Callable[..., Outcome], tmp_path: Path) -> None:
    good(called(call.words))
    packed = tmp_path / (call.option("--out") or "nvs-tiny.tar.gz")
    assert good(called(["verify", packed.name])).out.count("ok ") > 3


@pytest.mark.parametrize("call", calls("compare"))
def test_two_results_are_compared(call: Call, called: Callable[..., Outcome], tmp_path: Path) -> None:
    said = good(called(call.words)).out
    out = call.option("--out")
    assert "efficient-lvsm" in (Path(out).read_text() if out else said)


@pytest.mark.parametrize("call", calls("verify"))
def test_results_are_verified(call: Call, called: Callable[..., Outcome]) -> None:
    assert "WRONG" not in good(called(call.words)).out


@pytest.mark.parametrize("call", calls("parity"))
def test_architectures_agree_with_the_published_code(call: Call, called: Callable[..., Outcome]) -> None:
    given = [str(ROOT / path) if path.startswith("tests/") else path for path in call.given]
    good(called([call.name, *given]))


@pytest.mark.parametrize("call", calls("list"))
def test_what_there_is_is_listed(call: Call, called: Callable[..., Outcome]) -> None:
    assert len(good(called(call.words)).out.splitlines()) > 5


def test_a_finished_run_is_read_again(called: Callable[..., Outcome], tmp_path: Path) -> None:
    """DIR is a result with its weights, RUN a run in it."""
    good(called(overlaid(Call.of(("run", "nvs"))).added({"--out": "DIR"}).words))
    (tmp_path / "RUN").symlink_to(next((tmp_path / "DIR" / "runs").glob("*/seed-0")))
    for name, word in {"tables": "table.md", "tokens": "norms.json", "replay": "identical"}.items():
        (call,) = {call for call in CALLS.values() if call.name == name}
        assert word in good(called(call.words)).out


@pytest.mark.parametrize("call", calls("seeds"))
def test_the_seeds_that_a_difference_needs_are_told(call: Call, called: Callable[..., Outcome], tmp_path: Path) -> None:
    places.FILES["results/cpu-2core/nvs-tiny"](tmp_path / call.given[0])
    assert "efficient-lvsm" in good(called(call.words)).out


def test_help_is_there(called: Callable[..., Outcome]) -> None:
    assert ("isochron", "--help") in CALLED
    good(called(["--help"]))


@pytest.fixture(scope="session")
def benchmarks() -> str:
    """Names of all benchmarks, collected in a process of its own: a worker's settings are not those of a reader."""
    options = ["--collect-only", "-q", "-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider"]
    words = [sys.executable, "-m", "pytest", "tests/micro", *options]
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    return subprocess.run(words, cwd=ROOT, env=plain, capture_output=True, text=True, check=True, timeout=300).stdout


@pytest.mark.parametrize(
    "words", [pytest.param(words, id=shlex.join(words)) for words in CALLED if words[0] == "pytest"]
)
def test_the_benchmarks_that_are_named_exist(words: tuple[str, ...], benchmarks: str) -> None:
    wanted = words[words.index("-k") + 1] if "-k" in words else "::"
    assert [line for line in benchmarks.splitlines() if "::" in line and wanted in line]


@pytest.mark.parametrize("call", calls("scaling-curve"))
def test_curves_are_measured_and_drawn(
    call: Call, called: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scaling.comparison_of

    def little(curve: QualityCurve, point: QualityPoint) -> Comparison:
        comparison = whole(curve, point)
        few = {
            "task": {**comparison.task, **FEW[comparison.task["name"]]},
            "batch": ["fixed:1"],
            "eval_fractions": [1.0],
        }
        return config.validate(
            config.merge(comparison.model_dump(mode="json"), {**few, "sentinel": {"seconds": 0.01}}), "test"
        )

    monkeypatch.setattr(scaling, "comparison_of", little)
    place = "runs/scaling-..."
    if call.option("--out") == place:  # begun, and stopped before anything was measured
        curve = read_curves(["mae-tokens"])
        scaling.start(curve, tmp_path / place, device="cpu", cache_dir=tmp_path)
        added = call
    elif call.option("--from"):
        added = call.added({"--out": "made"})
    else:
        budget = "2 steps" if call.given else "800ms"
        added = call.added({"--out": "made", "--budget": budget, "--seeds": "1", **TIME})
    good(called(added.words))
    assert (tmp_path / (call.option("--out") or "made") / "paper" / "scaling.md").stat().st_size > 0


@pytest.mark.parametrize("words", [pytest.param(words, id=" ".join(words)) for words in CALLED if words[0] == "python"])
def test_the_numbers_of_the_embedded_data_are_printed(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(words[2])
    if words[2].endswith("named_calibration"):
        small = replace(module.PRESETS["tiny"], train_images=8, validation_images=3, test_images=3, words_images=3)
        monkeypatch.setattr(module, "PRESETS", {"tiny": small})
        module.main(tmp_path / words[3], *words[4:])
    else:
        monkeypatch.setattr(module, "TEMPERATURES", (0.01,))
        monkeypatch.setattr(module, "VideoSpec", lambda: VideoSpec(test_clips=5))
        monkeypatch.setattr(sys, "argv", [words[2], str(tmp_path / words[3]), "1"])
        module.main()
    assert re.search(r"copy-first|lookup of colours", capsys.readouterr().out)
