"""The walls of the house: who may import whom, where torch must stay out, and what no tracked file may hold.

Imports point one way: models and baselines know torch and the shared layers; tasks know data and metrics; the engine knows
contracts; statistics and the report read the store without torch; `experiment` composes; the command calls.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for top in ("bench", "models", "baselines") for path in (ROOT / top).rglob("*.py"))

COMMON = ("bench", "bench.aggregates", "bench.class_counts", "bench.contracts", "bench.errors", "bench.parse")
"""What every part of bench may import: version and protocol number, what stands for a run, contracts, the user's error, and how
files from outside are checked."""

SHARED = ("models.layers", "models.reference", "models.convmae", "models.catseg_aggregator")
"""What designs and baselines share: their building blocks, a backbone, a head, and the strict loader of published checkpoints."""

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "models": SHARED,
    "baselines": SHARED,
    "bench.aggregates": ("bench.class_counts", "bench.contracts"),
    "bench.class_counts": (),
    "bench.contracts": (),
    "bench.errors": (),
    "bench.parse": ("bench.errors",),
    "bench.config": (*COMMON, "bench.config"),
    "bench.registry": COMMON,
    "bench.data": (*COMMON, "bench.data", "bench.machine"),
    "bench.metrics": (*COMMON, "bench.metrics"),
    "bench.tasks": (*COMMON, "bench.tasks", "bench.data", "bench.metrics"),
    "bench.engine": (*COMMON, "bench.engine"),
    "bench.store": (*COMMON, "bench.store"),
    "bench.stats": (*COMMON, "bench.stats", "bench.store"),
    "bench.report.claims": (*COMMON, "bench.report", "bench.stats", "bench.store", "bench.config"),
    "bench.report": (*COMMON, "bench.report", "bench.stats", "bench.store"),
}
"""Part -> prefixes of the project's own modules that it may import. What is not named composes and may import bench."""

KNOW_ONLY_TORCH = ("models", "baselines")
LOADS_WHEN_USED = {
    "models.layers.trained_networks": ("timm", "stlpips_pytorch"),
    "models.layers.clip_weights": ("open_clip",),
    "models.layers.swin_guidance": ("timm",),
    "models.layers.minilm": ("safetensors",),
}
"""Module -> libraries that it may import inside its functions, for networks that were trained elsewhere."""
WITHOUT_TORCH = (
    "bench.cli",
    "bench.config",
    "bench.registry",
    "bench.errors",
    "bench.parse",
    "bench.contracts",
    "bench.stats",
    "bench.report",
)
READS_ENVIRONMENT = "bench.cli"


class Import(NamedTuple):
    """One import statement's target."""

    module: str
    line: int
    at_run_time: bool
    """False under ``if TYPE_CHECKING``."""
    when_used: bool
    """Inside a function or class, not when the module itself is imported."""


def module_name(path: Path, root: Path = ROOT) -> str:
    """`bench/engine/clock.py` -> `bench.engine.clock`."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, root: Path = ROOT) -> Iterator[Import]:
    """Every import in a file, also inside functions, with relative ones resolved and submodules told from names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    package = module_name(path, root).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        runs, when_used = id(node) not in typing_only, node not in tree.body
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, runs, when_used) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                nested = root.joinpath(*base.split("."), alias.name)
                is_module = nested.is_dir() or nested.with_suffix(".py").is_file()
                yield Import(f"{base}.{alias.name}" if is_module else base, node.lineno, runs, when_used)


def within(module: str, prefix: str) -> bool:
    """Whether a module is the prefix or lies inside it."""
    return module == prefix or module.startswith(prefix + ".")


def allowed(target: str, prefixes: tuple[str, ...]) -> bool:
    """`bench` as a prefix means the package itself, not all that lies inside it."""
    return any(target == prefix if prefix == "bench" else within(target, prefix) for prefix in prefixes)


def breaches(path: Path, root: Path = ROOT) -> list[str]:
    """What this file imports through a wall."""
    module = module_name(path, root)
    part = max((name for name in MAY_IMPORT if within(module, name)), key=len, default=None)
    inside_own = (
        (module.split(".")[0],)
        if part is None
        else (*MAY_IMPORT[part], *([module] if path.name == "__init__.py" else []))
    )
    found = []
    for target in imports_of(path, root):
        top = target.module.split(".")[0]
        where = f"{path.relative_to(root)}:{target.line}"
        if top == "tests":
            found.append(f"{where} imports {target.module}: code does not know its tests")
        elif top in ("bench", "models", "baselines"):
            # registry and experiment name architectures as strings, so nothing in bench imports models or baselines
            if not (allowed(target.module, inside_own) if part else top == "bench"):
                found.append(
                    f"{where} imports {target.module}: {part or module} may import {', '.join(inside_own) or 'nothing'}"
                )
        elif part in KNOW_ONLY_TORCH and top != "torch" and top not in sys.stdlib_module_names:
            if target.when_used and top in LOADS_WHEN_USED.get(module, ()):
                continue
            found.append(f"{where} imports {target.module}: {part} know torch and the standard library only")
    return found


def environment_reads(path: Path, root: Path = ROOT) -> list[str]:
    """Where this file reads an environment variable. Setting one by subscript is not reading."""
    if within(module_name(path, root), READS_ENVIRONMENT):
        return []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    written = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del)
    }
    names = {"environ", "environb", "getenv", "getenvb"}
    lines = [
        node.lineno
        for node in ast.walk(tree)
        if (
            isinstance(node, ast.Attribute)
            and node.attr in names
            and ast.unparse(node.value) == "os"
            and id(node) not in written
        )
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and any(alias.name in names for alias in node.names)
        )
    ]
    return [f"{path.relative_to(root)}:{line}" for line in lines]


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    found = breaches(path)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_only_the_command_reads_the_environment(path: Path) -> None:
    found = environment_reads(path)
    assert not found, "hand the value in from bench/cli: " + ", ".join(found)


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("models/net.py", "import numpy"),
        ("models/net.py", "def build():\n    import timm"),
        ("models/layers/trained_networks.py", "import timm"),
        ("models/layers/trained_networks.py", "def build():\n    import numpy"),
        ("models/net.py", "from bench.errors import UserError"),
        ("baselines/net.py", "from models.other import Other"),
        ("bench/engine/loop.py", "from bench.tasks import nvs"),
        ("bench/engine/loop.py", "from ..store import write"),
        ("bench/engine/loop.py", "def late():\n    import bench.experiment"),
        ("bench/engine/loop.py", "from models import net"),
        ("bench/tasks/nvs.py", "from bench.engine import loop"),
        ("bench/stats/means.py", "from bench.tasks.nvs import PSNR"),
        ("bench/experiment.py", "import models.net"),
        ("bench/experiment.py", "from tests import conftest"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, where: str, line: str) -> None:
    for folder in ("bench/engine", "bench/tasks", "bench/store", "bench/stats", "models/layers"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for module in ("bench/tasks/nvs.py", "bench/engine/loop.py", "models/net.py", "models/other.py"):
        (tmp_path / module).touch()
    path = tmp_path / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)
    assert len(breaches(path, tmp_path)) == 1


@pytest.mark.parametrize(
    ("where", "line"),
    [
        (
            "models/net.py",
            "import math\nimport torch.nn as nn\nfrom models.layers import blocks\nfrom .layers.blocks import Block",
        ),
        ("models/layers/trained_networks.py", "def build():\n    import timm"),
        ("bench/engine/loop.py", "from bench import PROTOCOL\nfrom bench.contracts import Task\nfrom . import clock"),
        ("bench/experiment.py", "from bench.engine import loop\nfrom bench import tasks, store"),
        ("bench/report/tables.py", "from bench.store import read\nimport bench.stats"),
    ],
)
def test_an_open_door_is_no_breach(tmp_path: Path, where: str, line: str) -> None:
    for module in ("models/layers/blocks.py", "bench/engine/clock.py", "bench/engine/loop.py", "bench/store/read.py"):
        (tmp_path / module).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / module).touch()
    (tmp_path / "bench/tasks").mkdir()
    path = tmp_path / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)
    assert not breaches(path, tmp_path)


@pytest.mark.parametrize(
    ("line", "reads"),
    [
        ("import os\nx = os.environ['A']", True),
        ("import os\nx = os.environ.get('A')", True),
        ("import os\nx = os.getenv('A')", True),
        ("from os import environ", True),
        ("import os\nos.environ.setdefault('A', '1')", True),
        ("import os\nchild = dict(os.environ)", True),
        ("import os\nos.environ['A'] = '1'", False),
        ("environ = {}\nenviron['A']", False),
    ],
)
def test_reading_the_environment_is_found(tmp_path: Path, line: str, reads: bool) -> None:
    path = tmp_path / "bench" / "engine.py"
    path.parent.mkdir()
    path.write_text(line)
    assert bool(environment_reads(path, tmp_path)) == reads


def test_torch_stays_out_of_command_statistics_and_report() -> None:
    """In a fresh interpreter: whatever they import in turn must not import torch either, nor make `--help` slow."""
    modules = [name for name in map(module_name, SOURCES) if any(within(name, part) for part in WITHOUT_TORCH)]
    program = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    heavy = ["torch"] + ["pandas", "seaborn", "matplotlib", "skimage", "trimesh"] * (name == "bench.cli")
    for culprit in heavy:
        if culprit in sys.modules:
            sys.exit(f"importing {name} imports {culprit}")
"""
    modules.sort(key=lambda name: name != "bench.cli")  # first, so that nobody else has imported pandas yet
    done = subprocess.run(
        [sys.executable, "-c", program, *modules], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def text_files() -> Iterator[tuple[str, str]]:
    """Name and text of every file that is, or would be, tracked."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes())[:8192]:
            yield name, content.decode("utf-8", errors="replace")


def test_no_tracked_file_names_a_registry_host_or_a_path_of_one_machine() -> None:
    # in pieces, so that this file does not find itself
    hosts = "|".join(
        r"\.".join(host) for host in [("pypi", "org"), ("pythonhosted", "org"), ("registry", "npm"), ("deb", "debian")]
    )
    folders = "|".join(["work", "farm", "tmp", "root", "home"])
    rules = [(re.compile(hosts), True), (re.compile(rf"(^|[^A-Za-z0-9_.])/({folders})/", re.MULTILINE), False)]
    found = []
    for name, text in text_files():
        for rule, in_lock in rules:
            if (in_lock or not name.endswith(".lock")) and (match := rule.search(text)):
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{name}:{line}: {text.splitlines()[line - 1].strip()[:100]}")
    assert not found, "\n".join(found)


def test_the_lock_pins_and_hashes_everything_and_names_no_index() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"^\s*(--(index|extra|find)|-[if] )|://", lock, re.MULTILINE)
    pinned = re.findall(
        r"^([a-z0-9.-]+)==(\S+)( ;[^\\\n]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", lock, re.MULTILINE
    )
    assert len(pinned) == len(re.findall(r"^[a-z]", lock, re.MULTILINE)), "a requirement without version or hash"
    names = {name for name, *_ in pinned}
    declared = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    missing = {re.match(r"[\w-]+", line)[0].lower() for line in declared} - names
    assert not missing, f"run `make lock`: {missing}"
    versions = {name: version for name, version, *_ in pinned}
    assert (versions["torch"], versions["torchvision"]) == ("2.15.0", "0.29.2"), "these two must match each other"
