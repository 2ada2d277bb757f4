"""One cache and one finished comparison for all acceptance tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from bench.config import Comparison
from bench.console import Console
from bench.engine.blocks import Interrupted
from bench.experiment import execute, measure, resolve
from bench.experiment.resolve import Arm
from bench.report import plots
from tests.experiment import helpers

OF_THE_DATA = (
    *("train_scenes", "validation_scenes", "test_scenes", "eval_batch", "data", "data_path"),
    *("neighbours", "evaluation_index", "clean_evaluation"),
)
"""Options of `nvs` that change what is trained on, and no shape of a batch."""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered scenes and probes, made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def the_command_uses_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch, repo_root: Path) -> None:
    monkeypatch.setenv("ISOCHRON_CACHE", str(cache))
    monkeypatch.chdir(repo_root)


@pytest.fixture(scope="session", autouse=True)
def flops_are_counted_once_an_arm() -> Iterator[None]:
    """Counting takes a process and a second each time; what it finds depends on the arm and the task alone."""
    count, known = measure.counts, {}

    def remembered(comparison: Comparison, cache_dir: Path, arm: Arm) -> dict[str, Any]:
        made = resolve.architecture_class(arm.config)
        task = {option: value for option, value in comparison.task.items() if option not in OF_THE_DATA}
        key = (id(made), arm.config.model_dump_json(), str(task))
        if key not in known:
            known[key] = count(comparison, cache_dir, arm)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "counts", remembered)
        yield


@pytest.fixture(autouse=True)
def figures_are_stand_ins(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Path]]:
    """Figures are made and not drawn, which takes longest: that is for tests/report, `finished` and `figures_are_drawn`."""
    save = plots.save

    def stand_in(figure: Figure, stem: Path) -> list[Path]:
        png, pdf = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf"))
        Image.new("L", (1, 1)).save(png)
        pdf.write_bytes(b"%PDF")
        return [png, pdf]

    monkeypatch.setattr(plots, "save", stand_in)
    return save


@pytest.fixture
def figures_are_drawn(figures_are_stand_ins: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn as the command draws them."""
    monkeypatch.setattr(plots, "save", figures_are_stand_ins)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path, repo_root: Path) -> Path:
    """A finished comparison with table and figures, made by `isochron run`; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOCHRON_CACHE", str(cache))
        patch.chdir(repo_root)
        source = helpers.write_yaml(folder / "planted.yaml", seeds=2, eval_fractions=[0.0, 0.5, 1.0])
        outcome = helpers.isochron("run", source, "--out", folder / "result")
    assert outcome.code == 0, outcome.err
    return folder / "result"


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory, cache: Path, repo_root: Path) -> Path:
    """Both real architectures at their tiny size on small images, timed, stopped once on the way and resumed."""
    folder = tmp_path_factory.mktemp("real") / "result"
    arms = [{"name": name, "architecture": name} for name in helpers.REAL]
    task = {**helpers.TASK, "train_scenes": 32}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repo_root)
        session = helpers.start(
            folder, cache, arms, budget="1500ms", cpu_memory="96MiB", task=task, eval_fractions=[0.5, 1.0]
        )

        def both_have_begun() -> bool:
            events = [path.read_bytes().count(b"\n") for path in folder.glob("runs/*/seed-0/events.jsonl")]
            return len(events) == 2 and min(events) >= 1

        session.stop_requested = both_have_begun
        with pytest.raises(Interrupted):
            session.execute()
        execute.reopen(folder, console=Console(quiet=True), cache_dir=cache).execute()
    return folder


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory, cache: Path, repo_root: Path) -> Path:
    """A comparison whose arms are measured and none of whose runs has begun; not to be changed. Steps take 4 ms."""
    folder = tmp_path_factory.mktemp("measured") / "result"
    sleeper = {"factory": "tests.planted:Sleeper", "options": {"seconds": 0.004}}
    arms = [{"name": "first", **sleeper}, {"name": "second", **sleeper}]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repo_root)
        session = helpers.start(
            folder, cache, arms, slice=0.1, budget="40 steps", checkpoint_interval="50ms", eval_fractions=[0.5, 1.0]
        )
        session.stop_requested = lambda: (folder / "runs").exists()
        with pytest.raises(Interrupted):
            session.execute()
    shutil.rmtree(folder / "runs")
    return folder


@pytest.fixture
def fresh(measured: Path, tmp_path: Path) -> Path:
    """A copy of the measured comparison, to be run by `isochron resume`."""
    return Path(shutil.copytree(measured, tmp_path / "fresh"))


@pytest.fixture(scope="session")
def expected(measured: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> dict[str, str]:
    """What the runs of the measured comparison come to when nothing disturbs them: arm -> SHA-256 of the weights."""
    folder = tmp_path_factory.mktemp("undisturbed") / "result"
    shutil.copytree(measured, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repo_root)
        execute.reopen(folder, console=Console(quiet=True), cache_dir=cache).execute()
    return helpers.weights(folder)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Callable[[], Path]:
    """`copy()` gives a copy of the finished comparison to change."""

    def make() -> Path:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(finished, folder))

    return make
