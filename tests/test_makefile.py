"""The Makefile: what it passes on, what it refuses, and that an install is done once, wholly, or again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make")

FAKE_PYTHON = """#!/bin/sh
# Stands in for python: knows `-m venv`, `-m pip` and the version check, and writes down what it was asked.
echo "$*" >> "{log}"
case "$*" in
  --version) echo "Python 3.12.0" ;;
  "-m venv --clear "*) rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
  *"install --require-hashes"*) [ ! -e "{fail}" ] ;;
esac
"""


class Project:
    """A folder with the Makefile, and a Python that only pretends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "asked.log"
        self.fail = folder / "pip-fails"
        for name in ("Makefile", "requirements.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, folder / name)
        self.python = folder / "python"
        self.python.write_text(FAKE_PYTHON.format(log=self.log, fail=self.fail))
        self.python.chmod(0o755)

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run make here, with only the given variables and PATH in the environment."""
        variables = {"PATH": os.environ["PATH"], **environment}
        command = ["make", *arguments]
        return subprocess.run(command, cwd=self.folder, env=variables, capture_output=True, text=True, check=False)

    def install(self, **variables: str) -> subprocess.CompletedProcess[str]:
        given = {"PYTHON": str(self.python), **variables}
        return self.make("install", *(f"{name}={value}" for name, value in given.items()))

    def asked(self) -> list[str]:
        """What python was asked since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line for line in lines if "venv" in line or "install" in line]

    def command(self, *arguments: str, **environment: str) -> str:
        """The last command that make would run, with single spaces."""
        done = self.make("-n", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return " ".join(done.stdout.strip().splitlines()[-1].split())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_variables_become_options_and_empty_ones_are_left_to_the_comparison(project: Project) -> None:
    run = ".venv/bin/python -m bench run"
    assert project.command("bench-time-budget") == f"{run} 'nvs'"
    given = [
        "BUDGET=45s",
        "SEEDS=3",
        "PRESET=small",
        "DEVICE=cuda:1",
        "COMPARISON=my.yaml",
        "BATCH=fixed:8",
        "OUT=a b's",
    ]
    assert project.command("bench-time-budget", *given) == (
        f"{run} 'my.yaml' --preset 'small' --budget '45s' --seeds '3' --batch 'fixed:8' --device 'cuda:1'"
        r" --out 'a b'\''s'"
    )
    assert project.command("plan", "SEEDS=5") == ".venv/bin/python -m bench plan 'nvs' --seeds '5'"


def test_the_task_whose_cost_is_measured_can_be_named(project: Project) -> None:
    measure = ".venv/bin/python -m bench measure-efficiency"
    assert project.command("measure-efficiency") == f"{measure} 'nvs'"
    assert project.command("measure-efficiency", "TASK=hydrology", "OUT=a") == f"{measure} 'hydrology' --out 'a'"


def test_curves_keep_their_own_budgets_unless_one_is_given(project: Project) -> None:
    curve = ".venv/bin/python -m bench scaling-curve"
    assert project.command("scaling-curve") == curve
    given = project.command("scaling-curve", "CURVES=nvs-width nvs-depth", "BUDGET=60s", "SEEDS=5", "OUT=a")
    assert given == f"{curve} nvs-width nvs-depth --budget '60s' --seeds '5' --out 'a'"


def test_tests_run_side_by_side_unless_the_arguments_say_otherwise(project: Project) -> None:
    test = ".venv/bin/python -m pytest -n auto --dist loadfile"
    assert project.command("test") == f"{test} -m 'not slow'"
    assert project.command("test-all") == test
    chosen = "-n 0 --pdb -k 'ledger or clock'"
    assert project.command("test", f"ARGS={chosen}") == f"{test} -m 'not slow' {chosen}"
    assert project.command("test-all", f"ARGS={chosen}") == f"{test} {chosen}"


def test_a_misspelt_variable_is_refused(project: Project) -> None:
    done = project.make("-n", "bench-time-budget", "BUGDET=45s")
    assert done.returncode != 0
    assert "unknown variable BUGDET" in done.stderr
    assert "BUDGET" in done.stderr.split("known:")[1]
    assert done.stdout == ""


def test_the_environment_does_not_change_a_run(project: Project) -> None:
    assert project.command("plan", SEEDS="9", DEVICE="cuda", PRESET="paper") == project.command("plan")


def test_flags_of_make_are_no_variables(project: Project) -> None:
    assert project.make("-n", "-k", "-j2", "--no-print-directory", "plan", "SEEDS=1").returncode == 0


def test_help_names_every_target_and_every_variable(project: Project) -> None:
    text = project.make().stdout
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*(?:\\\n.*)*)", makefile, re.MULTILINE)[1].replace("\\\n", " ").split()
    for target in set(phony) - {"FORCE"}:
        assert re.search(rf"^  {target} +\S", text, re.MULTILINE), target
    for variable in re.search(r"^known := (.*)$", makefile, re.MULTILINE)[1].split():
        assert re.search(rf"^  {variable} +\S", text, re.MULTILINE), variable
    assert "(default: nvs)" in text
    assert not (project.folder / ".venv").exists(), "help installs nothing"


def test_every_target_installs_first(project: Project) -> None:
    for target in ("bench-time-budget", "bench-aa", "bench-micro", "plan", "probe", "doctor", "test", "lint", "format"):
        assert "--require-hashes -r requirements.lock" in project.make("-n", target).stdout, target


def test_install_happens_once_and_again_when_the_lock_changes(project: Project) -> None:
    assert project.install().returncode == 0
    first = project.asked()
    assert [line.split()[1] for line in first] == ["venv", "pip", "pip"]
    assert "--require-hashes -r requirements.lock" in first[1]
    assert "--no-deps --no-build-isolation" in first[2]
    project.install()
    assert project.asked() == []
    later = time.time() + 10
    os.utime(project.folder / "requirements.lock", (later, later))
    project.install()
    assert [line.split()[1] for line in project.asked()] == ["pip", "pip"], "into the .venv that is there"


def test_an_install_cut_short_is_redone_from_nothing(project: Project) -> None:
    project.fail.touch()
    assert project.install().returncode != 0
    project.asked()
    project.fail.unlink()
    assert project.install().returncode == 0
    assert "venv" in project.asked()[0]


def test_a_moved_tree_or_a_dead_interpreter_installs_anew(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project.install()
    moved = Project(tmp_path_factory.mktemp("moved"))
    shutil.copytree(project.folder / ".venv", moved.folder / ".venv")
    project.asked()
    moved.install()
    assert project.asked(), "the stamp of another folder does not count (the copied python writes to the first log)"
    (project.folder / ".venv" / "bin" / "python").unlink()
    project.asked()
    project.install()
    assert "venv" in project.asked()[0]


def test_an_old_python_is_refused_with_a_clear_line(project: Project) -> None:
    old = project.folder / "old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = project.install(PYTHON=str(old))
    assert done.returncode != 0
    assert "needs Python >= 3.11" in done.stderr
    assert "PYTHON=" in done.stderr
    assert project.install(PYTHON=f"{old} {project.python}").returncode == 0, "the first that is new enough is taken"


def test_parity_without_fixtures_says_so(project: Project) -> None:
    project.install()
    done = project.make("parity", f"PYTHON={project.python}", "FILES=")
    assert done.returncode != 0
    assert "name them" in done.stderr


def test_clean_keeps_runs_and_results(project: Project) -> None:
    for folder in ("runs", "results", ".venv", "build", ".mypy_cache"):
        (project.folder / folder).mkdir()
    assert project.make("clean").returncode == 0
    left = {path.name for path in project.folder.iterdir() if path.is_dir()}
    assert left == {"runs", "results", ".venv"}
