"""What the documentation shows must work as shown."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fvcore.nn import FlopCountAnalysis
from torch.utils.flop_counter import FlopCounterMode

from bench import LEDGER_TOLERANCE, LOADER_WAIT_LIMIT, PROTOCOL, SENTINEL_DRIFT_LIMIT, cli, config, registry
from bench.engine import batchfit
from bench.tasks.masked_image_config import MaskedImageConfig
from tests.docs.pages import shown

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
    assert {one.words[1] for one in shown() if one.words[0] == "make"} <= targets


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


def test_the_architecture_on_the_page_has_about_forty_lines() -> None:
    lines = [line for line in blocks("add-an-architecture.md", "python")[0].splitlines() if line.strip()]
    assert len(lines) <= 40


def test_every_page_can_be_reached_from_the_readme() -> None:
    known, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        known.add(page)
        targets = re.findall(r"\]\(([^)#]+\.md)[^)]*\)", page.read_text())
        waiting += {(page.parent / target).resolve() for target in targets if "://" not in target} - known
    assert set(DOCS.rglob("*.md")) <= known


def test_the_readme_names_every_command() -> None:
    rows = re.search(r"^\| command \|.*\n\|.*\n((?:\|.*\n)*)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert rows
    cells = [row.removeprefix("| ").replace(r"\|", "/").split(" | ")[0] for row in rows[1].splitlines()]
    named = {code.split()[0] for cell in cells for code in re.findall(r"`([^`]+)`", cell)}
    known = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    assert known == {name.rstrip("_") for name in named}


FOOTGUNS = re.findall(r"^### (.*)\n((?:(?!^##).*\n?)*)", (DOCS / "footguns.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("title", "text"), FOOTGUNS, ids=[title for title, _ in FOOTGUNS])
def test_a_footgun_has_its_wrong_and_its_right_form(title: str, text: str) -> None:
    assert text.startswith("**Wrong:** ")
    assert text.count("\n**Right:** ") == 1
    for target in re.findall(r"\(((?:bench|tests)/[\w/.-]+)\)|`((?:bench|tests)/[\w/.-]+)`", text):
        assert (ROOT / "".join(target)).exists(), target


def test_the_footguns_in_code_are_as_they_are_told() -> None:
    page = " ".join((DOCS / "footguns.md").read_text().split())
    assert "`int(100 * (1 - 0.9))` kept patches: that is 9" in page
    assert int(100 * (1 - 0.9)) == 9
    assert MaskedImageConfig(image_size=100, patch_size=10, mask_ratio=0.9).kept == 10
    block = torch.nn.Linear(3, 2)
    compiled = {f"_orig_mod.{name}": torch.zeros_like(value) for name, value in block.state_dict().items()}
    before = block.weight.clone()
    told = block.load_state_dict(compiled, strict=False)
    assert torch.equal(block.weight, before), "strict=False took nothing over, in silence"
    assert len(told.unexpected_keys) == 2
    attention = torch.nn.functional.scaled_dot_product_attention
    counted = FlopCountAnalysis(_Attention(attention), torch.rand(1, 2, 8, 4)).unsupported_ops_warnings(False)
    assert counted.total() == 0
    assert "aten::scaled_dot_product_attention" in counted.unsupported_ops()
    errors = torch.tensor([0.01, 0.1])
    assert (-10 * errors.log10()).mean() > -10 * errors.mean().log10(), "PSNR of the mean error is never larger"


class _Attention(torch.nn.Module):
    """Attention alone, as a module."""

    def __init__(self, attend: Any) -> None:
        super().__init__()
        self.attend = attend

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.attend(tokens, tokens, tokens)


NOT_IN_THE_TABLE = {
    "vos-topk-scaling-96-tiny": {"2.25"},  # 96 pixels over 64, squared
    "ovseg-class-attention-tiny": {"120"},  # of the comparison
    "ovseg-text-tiny": {"22.4"},  # of docs/segmentation-data.md
}
"""Numbers beside a link to a published table that come from elsewhere."""


def quoted() -> list[Any]:
    """Paragraphs of the pages that link a published table."""
    found = []
    for page in DOCS.glob("*.md"):
        for text in re.findall(r"^- .*?(?=^- |^$)", page.read_text(), re.MULTILINE | re.DOTALL):
            if names := re.findall(r"\.\./(results/[^/]+/[^/]+)/table\.md", text):
                found.append(pytest.param(text, names, id=f"{page.stem}: {Path(names[0]).name}"))
    return found


@pytest.mark.parametrize(("text", "names"), quoted())
def test_numbers_beside_a_published_table_stand_in_it(text: str, names: list[str]) -> None:
    """In the table, or as what one run reached, rounded as the page rounds."""
    known: list[float] = []
    for name in names:
        known += map(float, re.findall(r"\d+(?:\.\d+)?", (ROOT / name / "table.md").read_text()))
        for path in (ROOT / name).glob("runs/*/*/run.json"):
            known += [
                abs(value) for value in (json.loads(path.read_text())["final"] or {}).values() if value is not None
            ]
    said = set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?", re.sub(r"\]\([^)]*\)", "", text)))
    allowed = set().union(*(NOT_IN_THE_TABLE.get(Path(name).name, set()) for name in names))
    missing = {number for number in said - allowed if not any(stands(number, value) for value in known)}
    assert not missing, f"not in {names}: {sorted(missing)}"


def stands(number: str, value: float) -> bool:
    """Whether `number` is `value` as it would be rounded to so many digits."""
    digits = len(number.partition(".")[2])
    return abs(float(number) - value) <= 0.5 * 10.0**-digits + 1e-9


def test_every_section_and_column_of_a_table_is_explained() -> None:
    page = (DOCS / "reading-the-table.md").read_text().lower()
    for path in ROOT.glob("results/*/*/table.md"):
        text = path.read_text()
        for heading in re.findall(r"^## ([^:,\n]*)", text, re.MULTILINE):
            assert (
                re.sub(r"^paired by (?!seed).*", "paired by clip", heading.lower()).split(" of the same")[0] in page
            ), heading
        cost = re.search(r"^## Cost\n\n\| (.*) \|$", text, re.MULTILINE)
        assert cost
        for column in cost[1].split(" | ")[1:]:
            word = re.sub(r" ?\(.*|,.*| training| inference|/picture|/frame", "", column.lower())
            assert word.removeprefix("ms") in page or word in ("pictures/s", "frames/s"), column
