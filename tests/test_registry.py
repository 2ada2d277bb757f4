from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal

import pytest

from bench import registry
from bench.errors import UserError


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that the command is started in; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_every_registered_name_can_be_loaded() -> None:
    for entry in (*registry.ARCHITECTURES.values(), *registry.TASKS.values()):
        made = registry.load_object(entry.target, "name")
        assert isinstance(made, type)
        assert entry.summary
    assert all(entry.task in registry.TASKS for entry in registry.ARCHITECTURES.values())


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError) as caught:
        registry.architecture("lvms")
    assert "'lvms' is unknown; known: " in str(caught.value)
    assert "lvsm-decoder-only, lvsm-encoder-decoder, mae" in str(caught.value)
    assert "factory: pkg.file:Name" in str(caught.value)
    with pytest.raises(UserError, match=r"task 'nsv' is unknown; known: .*nvs"):
        registry.task("nsv")


def test_a_factory_is_found_in_the_folder_that_the_command_was_started_in(cwd: Path) -> None:
    (cwd / "my_nets").mkdir()
    (cwd / "my_nets" / "wide.py").write_text("class Wide:\n    pass\n")
    (cwd / "lone_net.py").write_text("def make():\n    return 1\n")
    assert registry.load_object("my_nets.wide:Wide", "factory").__name__ == "Wide"
    assert registry.load_object("lone_net:make", "factory")() == 1


@pytest.mark.parametrize(
    ("target", "source", "says"),
    [
        ("lone_net", "", "write it as package.module:Name"),
        ("lone_net:", "", "write it as package.module:Name"),
        (":Net", "", "write it as package.module:Name"),
        (".lone_net:Net", "", "write it as package.module:Name"),
        ("", "", "write it as package.module:Name"),
        ("no_such_net:Net", "", "no module named 'no_such_net'; install it, or start from its folder"),
        ("lone_net:Net", "import no_such_part\n", "no module named 'no_such_part'"),
        ("lone_net:Net", "Ned = 1\n", "the module has no 'Net'"),
        ("lone_net:Net", "from os import no_such_name\n", "cannot be imported .ImportError"),
        ("lone_net:Net", "def broken(:\n", "cannot be imported .SyntaxError"),
        ("lone_net:Net", "raise ValueError('two\\nlines')\n", "cannot be imported .ValueError: two lines"),
        ("lone_net:Net", "import os\nos.no_such_thing\n", "cannot be imported .AttributeError"),
    ],
)
def test_a_factory_that_cannot_be_had_is_one_line(cwd: Path, target: str, source: str, says: str) -> None:
    (cwd / "lone_net.py").write_text(source)
    with pytest.raises(UserError, match=says) as caught:
        registry.load_object(target, "arms.x.factory")
    line = str(caught.value)
    assert line.startswith(f"arms.x.factory {target!r}: ")
    assert "\n" not in line


def test_installed_packages_register_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("my-net", "my_package.my_net:MyNet", registry.ENTRY_POINT_GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.ENTRY_POINT_GROUP else [])
    assert registry.architecture("my-net").target == "my_package.my_net:MyNet"
    assert "my_package" in registry.architecture("my-net").summary
    assert set(registry.ARCHITECTURES) < set(registry.architectures())
    with pytest.raises(UserError, match="my-net"):
        registry.architecture("my-ned")
    points.append(EntryPoint("efficient-lvsm", "other:Net", registry.ENTRY_POINT_GROUP))
    with pytest.raises(UserError, match="'efficient-lvsm' is registered twice; rename the entry point of other:Net"):
        registry.architectures()


def test_a_package_that_is_put_on_the_path_later_registers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "late-net" not in registry.architectures()
    info = tmp_path / "late-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINT_GROUP}]\nlate-net = late:Net\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.architecture("late-net").target == "late:Net"
    monkeypatch.undo()
    assert "late-net" not in registry.architectures()


@dataclass(frozen=True)
class NetConfig:
    width: int = 8
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"
    layers: tuple[int, ...] = ()
    head: str | None = None

    def __post_init__(self) -> None:
        if self.width % 2:
            raise ValueError(f"width must be even, got {self.width}")


class Net:
    config_class = NetConfig


PRESETS = {"tiny": NetConfig(width=4), "small": {"width": 6}}


def test_options_become_the_config_with_types_checked() -> None:
    config = registry.make_config(Net, {"width": 4, "rate": 1, "layers": [1, 2], "head": "x"}, "arms.net.options")
    assert config == NetConfig(4, 1.0, "a", (1, 2), "x")
    assert isinstance(config.rate, float)
    assert registry.make_config(Net, {}, "arms.net.options") == NetConfig()
    assert registry.make_config(Net, {"head": 2023}, "arms.net.options").head == "2023", (
        "a name that looks like a number"
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"wdith": 4}, ["arms.net.options.wdith: unknown option of Net; known: head, kind, layers, rate, width"]),
        ({"width": "wide"}, ["arms.net.options.width: ", "got 'wide'"]),
        ({"width": 3.5}, ["arms.net.options.width: ", "got 3.5"]),
        ({"kind": "c"}, ["arms.net.options.kind: ", "'a' or 'b'", "got 'c'"]),
        ({"layers": 3}, ["arms.net.options.layers: ", "got 3"]),
        ({"width": 7}, ["arms.net.options: width must be even, got 7"]),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(options: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        registry.make_config(Net, options, "arms.net.options")
    line = str(caught.value)
    assert "\n" not in line
    for words in says:
        assert words in line


def test_presets_come_from_the_module_of_the_class() -> None:
    assert registry.preset_options(Net, "tiny")["width"] == 4
    assert registry.preset_options(Net, "small") == {"width": 6}
    assert registry.preset_options(Net, "paper") == {}
    assert registry.preset_options(dict, "tiny") == {}


@pytest.mark.parametrize("name", list(registry.ARCHITECTURES))
def test_shipped_architectures_have_their_presets(name: str) -> None:
    made = registry.load_object(registry.architecture(name).target, "architecture")
    for preset in ("tiny", "small", "paper"):
        options = registry.preset_options(made, preset)
        assert options
        assert registry.make_config(made, options, "options") == made.config_class(**options)


@dataclass(frozen=True)
class Inner:
    name: str
    size: int = 1


@dataclass(frozen=True)
class OuterConfig:
    inner: Inner | None = None
    width: int = 8


class Outer:
    config_class = OuterConfig


def test_options_within_options_are_checked_alike() -> None:
    made = registry.make_config(Outer, {"inner": {"name": "a", "size": 3}}, "arms.x.options")
    assert made == OuterConfig(Inner("a", 3))
    for inner, says in (
        ({"name": "a", "sise": 3}, r"arms.x.options.inner.sise: unknown option of inner; known: name, size"),
        ({"size": 3}, r"arms.x.options.inner.name: is missing; add it"),
        ({"name": "a", "size": "many"}, r"arms.x.options.inner.size: .*'many'"),
    ):
        with pytest.raises(UserError, match=says):
            registry.make_config(Outer, {"inner": inner}, "arms.x.options")
