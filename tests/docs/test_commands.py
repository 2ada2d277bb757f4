"""Every command that the documentation shows does what it says there, on little data; those that train are in `test_runs`."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench import config
from bench.config import Comparison
from bench.data.video.spec import VideoSpec
from bench.experiment import scaling
from bench.experiment.scaling.curves import read_curves
from bench.store.scaling import QualityCurve, QualityPoint
from tests.docs import places
from tests.docs.calls import Call
from tests.docs.commands import CALLED, FEW, NOT_RUN, TIME, calls, good
from tests.docs.pages import PAGES, ROOT, command, fenced, shown
from tests.experiment.helpers import Outcome

RULES = {
    "run", "plan", "check", "aa", "measure-efficiency", "paper-tables", "claims", "report", "bundle", "compare", "verify",
    "scaling-curve", "tables", "tokens", "replay", "parity", "list", "seeds",
}  # fmt: skip
"""Commands of `isochron` that a test below, or of `test_runs`, runs wherever a page shows them."""
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


def lightened(call: Call) -> Call:
    """A `check` with pictures of 64 pixels for the trained network that the page names."""
    return call.added({}, {"encoder.input_size": 64}) if "encoder.name" in dict(call.sets) else call


@pytest.mark.parametrize("call", calls("check", lightened))
def test_an_architecture_is_checked(call: Call, called: Callable[..., Outcome]) -> None:
    words = ["lvsm-encoder-decoder" if word == "NAME" else word for word in call.words]
    assert "FAIL" not in good(called(words)).out


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
        budget = "2 steps" if call.given else "240ms"
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
        monkeypatch.setattr(module, "VideoSpec", lambda: VideoSpec(image_size=32, frames=8, test_clips=5))
        monkeypatch.setattr(sys, "argv", [words[2], str(tmp_path / words[3]), "1"])
        module.main()
    assert re.search(r"copy-first|lookup of colours", capsys.readouterr().out)
