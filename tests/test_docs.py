"""What the documentation shows must work as shown."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from bench import LEDGER_TOLERANCE, LOADER_WAIT_LIMIT, PROTOCOL, SENTINEL_DRIFT_LIMIT, cli, config, registry
from bench.engine import batchfit

DOCS = Path(__file__).resolve().parent.parent / "docs"
ROOT = DOCS.parent


def blocks(page: str, language: str) -> list[str]:
    """Code blocks of one language on a page."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a user's own with the page's architecture in it, as the current one."""
    (tmp_path / "pooled.py").write_text(blocks("add-an-architecture.md", "python")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pooled", raising=False)
    return tmp_path


def batch_of_rays() -> dict[str, torch.Tensor]:
    """Two scenes, three input and two target views of 32 pixels."""

    def cameras(views: int) -> tuple[torch.Tensor, torch.Tensor]:
        pose = torch.eye(4).repeat(2, views, 1, 1)
        pose[:, :, :3, 3] = torch.rand(2, views, 3)
        return pose, torch.tensor([32.0, 32.0, 16.0, 16.0]).repeat(2, views, 1)

    (input_c2w, input_intrinsics), (target_c2w, target_intrinsics) = cameras(3), cameras(2)
    return {
        "input_images": torch.rand(2, 3, 3, 32, 32),
        "input_c2w": input_c2w,
        "input_intrinsics": input_intrinsics,
        "target_c2w": target_c2w,
        "target_intrinsics": target_intrinsics,
    }


@pytest.mark.usefixtures("own_folder")
def test_the_architecture_on_the_page_works() -> None:
    cls: Any = registry.load_object("pooled:Pooled", "factory")
    model = cls(registry.make_config(cls, {"width": 64}, "options"))
    batch = batch_of_rays()
    images = model(**batch)["images"]
    assert images.shape == (2, 2, 3, 32, 32)
    assert 0 <= images.min() <= images.max() <= 1
    images.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    with torch.device("meta"):
        twin = cls(registry.make_config(cls, {"width": 64}, "options"))
    with FlopCounterMode(display=False) as counter:
        twin(**{name: tensor.to("meta") for name, tensor in batch.items()})
    assert cls.flops(model, batch) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_the_comparison_on_the_page_is_valid(own_folder: Path) -> None:
    path = own_folder / "mine.yaml"
    path.write_text(blocks("add-an-architecture.md", "yaml")[0])
    comparison = config.load(path)
    assert [arm.name for arm in comparison.arms] == ["lvsm-decoder-only", "pooled"]
    assert comparison.training_of(comparison.arms[1]).learning_rate == 2e-3


def test_the_entry_point_on_the_page_names_the_group_that_is_read() -> None:
    shown = tomllib.loads(blocks("add-an-architecture.md", "toml")[0])
    assert list(shown["project"]["entry-points"]) == [registry.ENTRY_POINT_GROUP]


def test_the_protocol_page_has_the_codes_version() -> None:
    assert f"version {PROTOCOL}" in (DOCS / "protocol.md").read_text().splitlines()[0]


def test_every_relative_link_leads_somewhere() -> None:
    broken = []
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken, "\n".join(broken)


def test_every_make_target_on_a_page_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]:
        named = set(
            re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)(?=[`\s])", "\n".join(re.findall(r"`[^`]+`", page.read_text())))
        )
        assert named <= targets, f"{page.name}: {named - targets}"


def test_every_isochron_command_on_a_page_exists() -> None:
    known = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]:
        text = page.read_text()
        code = "\n".join(re.findall(r"```\n.*?```|```(?:sh|bash)\n.*?```|`[^`\n]+`", text, re.DOTALL))
        named = set(re.findall(r"(?:`|^|/)isochron ([a-z0-9]+(?:-[a-z0-9]+)*)", code, re.MULTILINE))
        assert named <= known, f"{page.name}: {named - known}"


def test_the_readme_says_what_the_main_job_runs() -> None:
    nvs = config.load("nvs")
    arms, policies, seeds, seconds = len(nvs.arms), len(nvs.batch), len(nvs.seeds), nvs.budget.amount
    total = arms * policies * seeds * seconds
    said = f"{arms} arms x {policies} batch policies x {seeds} seeds x {seconds:g} s = {total:g} charged seconds"
    assert said in " ".join((ROOT / "README.md").read_text().split())


def test_the_protocol_page_has_the_codes_bounds() -> None:
    page = " ".join((DOCS / "protocol.md").read_text().split())
    for said in (
        f"above {100 * LEDGER_TOLERANCE:g} % the run is invalid",
        f"more than {100 * SENTINEL_DRIFT_LIMIT:g} % from the block's median",
        f"loader wait below {100 * LOADER_WAIT_LIMIT:g} %",
        f"fills {100 * batchfit.GOAL:g} % of the limit",
        f"at {100 * batchfit.AIM:g} % of the limit",
        f"aims at {100 * batchfit.AIM_BELOW:g} % of it",
        f"{100 * batchfit.ON_THE_WAY:g} % of the way",
        f"after {batchfit.MAX_PROBES} probes",
    ):
        assert said in page, said


def test_yaml_blocks_are_yaml() -> None:
    for page in DOCS.rglob("*.md"):
        for block in blocks(str(page.relative_to(DOCS)), "yaml"):
            assert yaml.safe_load(block)
