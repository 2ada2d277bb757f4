"""The command: every mistake is one clear line, every output is what was asked for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench import PROTOCOL, __version__, cli
from tests.experiment.helpers import TASK, Outcome, content, isochron, write_yaml

COMMANDS = (
    "run", "resume", "extend", "plan", "replay", "verify", "tables", "publish", "parity", "check", "probe", "aa", "list", "seeds",
    "doctor", "tokens", "convert-re10k", "measure-efficiency", "paper-tables",
    "claims", "bundle", "compare", "report", "scaling-curve",
)  # fmt: skip


@pytest.fixture(autouse=True)
def a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo_root: Path) -> None:
    """An empty cache, an empty working folder, and the planted architectures within reach."""
    monkeypatch.setenv("ISOCHRON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(repo_root)])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def everything_under(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_for_people(command: str) -> None:
    outcome = isochron(command, "--help")
    assert outcome.code == 0
    assert outcome.out.startswith(("Usage: isochron", "\nUsage: isochron", " Usage: isochron"))
    described = [line for line in outcome.out.splitlines() if line and not line.lstrip().startswith(("Usage", "-"))]
    assert described


def test_help_lists_every_command() -> None:
    outcome = isochron("--help")
    assert outcome.code == 0
    assert {command for command in COMMANDS if f"\n  {command} " in outcome.out} == set(COMMANDS)
    registered = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert registered == set(COMMANDS), "add the new command to this test"


def test_version() -> None:
    outcome = isochron("--version")
    assert (outcome.code, outcome.out) == (0, f"isochron {__version__}, protocol {PROTOCOL}\n")


# ------------------------------------------------------------------------------------------------------- mistakes


def run(tmp_path: Path, *options: object, **changes: object) -> Outcome:
    """`isochron run` on a comparison with these changes."""
    source = tmp_path / "a.yaml"
    source.write_text(yaml.safe_dump(content(**changes)))
    return isochron("run", source, "--out", tmp_path / "result", "--quiet", *options)


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"bugdet": "3s"}, (), "bugdet: unknown key; remove it or mend its spelling"),
        ({"training": {"learnin_rate": 1}}, (), "training.learnin_rate: unknown key"),
        ({"budget": "soon"}, (), "budget: 'soon' is no duration"),
        ({"seeds": 0}, (), "seeds: must be at least 1, got 0"),
        ({"batch": ["full"]}, (), "'full' is no batch policy; known: fill, knee, fixed:N"),
        ({"task": {**TASK, "image_sise": 32}}, (), "task.image_sise: unknown option of NovelViewSynthesis"),
        ({"task": {**TASK, "image_size": 4}}, (), "task.image_size must be at least 16, got 4"),
        (
            {"task": {"name": "chess"}},
            (),
            "task 'chess' is unknown; known: hydrology, masked-image, nvs, openvocab, tracking, vos",
        ),
        (
            {"arms": ["lvsm"]},
            (),
            "architecture 'lvsm' is unknown; known: catseg, catseg-aggregator, crossmae, efficient-lvsm, hydrology-mae, lvsm-decoder-only",
        ),
        (
            {"arms": [{"architecture": "efficient-lvsm", "options": {"wdith": 64}}]},
            (),
            "arms.efficient-lvsm.options.wdith: unknown option of EfficientLVSM",
        ),
        (
            {"arms": [{"architecture": "efficient-lvsm", "options": {"width": 65}}]},
            (),
            "width must be a multiple of head_dim",
        ),
        ({"threads": 1000}, (), "threads: must be between 1 and"),
        ({}, ("--device", "tpu"), "device: 'tpu' is unknown; use auto, cpu, cuda or cuda:N"),
        ({}, ("--set", "budget"), "--set 'budget': write it as key.subkey=value"),
        (
            {},
            ("--set", "training.optimizer=lion"),
            "training.optimizer: input should be 'adamw', 'adam' or 'sgd', got 'lion'",
        ),
        ({}, ("--preset", "huge"), "preset 'huge': a.yaml has no presets"),
        ({}, ("--budget", "0s"), "must be > 0 seconds"),
        ({"eval_fractions": [0.5]}, (), "eval_fractions: must ascend within [0, 1] and end with 1.0"),
    ],
    ids=lambda value: None if isinstance(value, tuple) else str(value)[:40],
)
def test_a_wrong_configuration_is_one_line_and_leaves_nothing(
    tmp_path: Path, changes: dict[str, object], options: tuple[str, ...], said: str
) -> None:
    outcome = run(tmp_path, *options, **changes)
    assert said in outcome.line
    assert outcome.code == 1
    assert not list(tmp_path.rglob("events.jsonl"))


def test_a_missing_gpu_is_one_line(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    outcome = run(tmp_path, "--device", "cuda")
    assert "device: 'cuda' is not available" in outcome.line
    assert "--device cpu" in outcome.line
    assert not (tmp_path / "result").exists()


def test_an_unknown_comparison_names_the_known_ones() -> None:
    assert (
        "comparison 'nsv' is unknown; known: mae-feature-maps, mae-hydrology, mae-image, nvs, "
        in isochron("run", "nsv").line
    )
    assert "missing.yaml: cannot be read (No such file or directory)" in isochron("plan", "missing.yaml").line


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    (tmp_path / "result/thesis.txt").write_text("three years")
    assert "the folder is not empty" in run(tmp_path).line
    assert everything_under(tmp_path / "result") == ["thesis.txt"]


@pytest.mark.parametrize("command", ["resume", "verify", "tables", "publish", "replay", "bundle"])
def test_what_is_no_result_folder_is_one_line(tmp_path: Path, command: str) -> None:
    assert "holds no" in isochron(command, tmp_path).line.replace("holds neither", "holds no")
    missing = isochron(command, tmp_path / "nowhere").line
    assert "nowhere" in missing
    assert everything_under(tmp_path / "here") == []


def test_extend_needs_a_result_folder(tmp_path: Path) -> None:
    assert "holds no comparison.yaml" in isochron("extend", tmp_path, "--seeds", 5).line


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    source = write_yaml(tmp_path / "a.yaml")
    outcome = isochron("run", source, "--quiet", "--out", tmp_path / "file" / "result")
    assert "file" in outcome.line


def test_a_truncated_fixture_is_one_line(tmp_path: Path, repo_root: Path) -> None:
    whole = (repo_root / "tests/fixtures/parity/efficient-lvsm.safetensors").read_bytes()
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(whole[: len(whole) // 2])
    assert "broken.safetensors" in isochron("parity", broken).line
    assert "absent.safetensors" in isochron("parity", tmp_path / "absent.safetensors").line


def test_parity_passes_on_the_fixtures_of_the_project(repo_root: Path) -> None:
    files = sorted((repo_root / "tests/fixtures/parity").glob("*.safetensors"))
    outcome = isochron("parity", *files)
    assert outcome.code == 0, outcome.out + outcome.err
    assert len(files) == 6


def test_a_damaged_shard_and_a_damaged_manifest_are_one_line_each(
    tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.data import scenes
    from bench.tasks.nvs_config import NVSConfig

    monkeypatch.chdir(repo_root)
    options = {key: value for key, value in TASK.items() if key != "name"}
    spec = NVSConfig(**options).scene_spec
    scenes.prepare(spec, ("train", "validation", "test"), tmp_path / "cache", workers=1)
    shard = next((tmp_path / "cache").rglob("train-*/shard-0000-rgb.npy"))
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 255
    shard.write_bytes(bytes(damaged))
    line = run(tmp_path).line
    assert "shard-0000-rgb.npy does not match its SHA-256" in line
    assert f"delete {shard}" in line
    shutil.rmtree(tmp_path / "result")
    shard.with_name("manifest.json").write_text('{"spec": ')
    line = run(tmp_path).line
    assert "manifest.json cannot be read" in line
    assert "delete" in line
    assert not list((tmp_path / "result").rglob("events.jsonl"))


def test_debug_shows_the_trace_wherever_it_stands() -> None:
    outcome = isochron("run", "nsv", "--debug")
    assert outcome.code == 1
    assert "Traceback" in outcome.err
    assert outcome.err.strip().splitlines()[-1].startswith("isochron: comparison 'nsv' is unknown")


def test_an_unforeseen_error_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import doctor

    def fail(**options: object) -> None:
        raise ZeroDivisionError("of all\nthings")

    monkeypatch.setattr(doctor, "examine", fail)
    assert isochron("doctor").line == "isochron: ZeroDivisionError: of all things (isochron --debug shows where)"


@pytest.mark.parametrize(
    "arguments", [("run",), ("runn", "nvs"), ("run", "nvs", "--sedes", "3"), ("aa", "nvs", "--repetitions", "0")]
)
def test_a_wrong_command_line_ends_with_a_code_and_no_trace(arguments: tuple[str, ...]) -> None:
    outcome = isochron(*arguments)
    assert outcome.code != 0
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert outcome.err


def test_as_a_process_a_mistake_is_one_line_and_a_code(tmp_path: Path, repo_root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    command = [sys.executable, "-m", "bench", "list", "planets"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "isochron: list 'planets': is none of architectures, tasks, comparisons, curves, presets\n"


# -------------------------------------------------------------------------------------- what looks and starts nothing


def test_plan_writes_nothing_and_starts_nothing(tmp_path: Path) -> None:
    source = write_yaml(tmp_path / "a.yaml", budget="45s", seeds=3, batch=["fill", "knee"])
    before = everything_under(tmp_path)
    outcome = isochron("plan", source)
    assert outcome.code == 0, outcome.err
    assert everything_under(tmp_path) == before
    assert (
        "4 arms (plain.fill, twin.fill, plain.knee, twin.knee) x 3 seeds = 12, 45 charged seconds each" in outcome.out
    )
    assert "540 s charged" in outcome.out
    assert "256 MiB" in outcome.out
    assert "disk: about" in outcome.out
    text = outcome.out.split("The resolved configuration:\n\n")[1]
    (tmp_path / "again.yaml").write_text(text)
    again = isochron("plan", tmp_path / "again.yaml")
    assert again.code == 0, again.err
    assert again.out.split("The resolved configuration:\n\n")[1].strip() == text.strip()


def test_plan_names_files_that_are_not_there(tmp_path: Path) -> None:
    given = ["--set", "task.fidelity=inception-2048", "--set", f"task.fidelity_weights={tmp_path / 'inception.pth'}"]
    outcome = isochron("plan", "nvs", *given)
    assert outcome.code == 0, outcome.err
    line = f"  not there: task.fidelity_weights: {tmp_path / 'inception.pth'}; nothing runs before it is\n"
    assert line in outcome.out
    (tmp_path / "inception.pth").touch()
    assert "not there" not in isochron("plan", "nvs", *given).out


def test_probe_json_is_json_alone(tmp_path: Path) -> None:
    source = write_yaml(tmp_path / "a.yaml", batch=["fill", "knee"])
    outcome = isochron("probe", source, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert set(found) == {"plain", "twin"}, "one curve an architecture, whatever the policies"
    curve = found["plain"]["curve"]
    assert {"batch", "peak_bytes", "samples_per_s", "fits", "error"} <= set(curve[0])
    assert found["plain"]["max_fit"] in [point["batch"] for point in curve]
    assert "probe of batch" in outcome.err
    assert not list(tmp_path.rglob("events.jsonl"))
    assert everything_under(tmp_path / "here") == []


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("architectures", {"efficient-lvsm", "lvsm-decoder-only", "lvsm-encoder-decoder"}),
        ("tasks", {"nvs"}),
        ("comparisons", {"nvs"}),
        ("presets", {"tiny", "small", "paper"}),
    ],
)
def test_list(what: str, names: set[str]) -> None:
    found = json.loads(isochron("list", what, "--json").out)
    assert names <= set(found)
    assert all(found.values()), "each has a line about it"
    shown = isochron("list", what)
    assert shown.code == 0
    assert {line.split()[0] for line in shown.out.splitlines()} == set(found)


def test_doctor(tmp_path: Path) -> None:
    outcome = isochron("doctor", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert isinstance(json.loads(outcome.out), dict)
    assert isochron("doctor").out
    assert everything_under(tmp_path / "here") == []
