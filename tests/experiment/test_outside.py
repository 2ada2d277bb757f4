"""An architecture from a folder of its own, outside the repository: one short file and one YAML."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.experiment.helpers import content, isochron, load

ARCHITECTURE = '''
"""Paints every target with the mean colour of the inputs, tinted by a linear map of the pose."""

from torch import nn


class Tinted(nn.Module):
    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength
        self.tint = nn.Linear(12, 3)

    def forward(self, input_images, input_c2w, input_intrinsics, target_c2w, target_intrinsics):
        size = input_images.shape[-1]
        colour = input_images.mean(dim=(1, 3, 4))[:, None]  # [B, 1, 3]
        shift = self.tint(target_c2w[..., :3, :].flatten(-2))  # [B, Vt, 3]
        painted = (colour + self.strength * shift.tanh()).clamp(0, 1)
        return {"images": painted[..., None, None].expand(-1, -1, -1, size, size)}

    def flops(self, batch):
        samples, targets = batch["target_c2w"].shape[:2]
        return 2 * 12 * 3 * samples * targets
'''


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the two files, as the working directory."""
    (tmp_path / "tinted_net.py").write_text(ARCHITECTURE)
    arms = [
        {"name": "tinted", "factory": "tinted_net:Tinted", "options": {"strength": 0.5}},
        {"name": "strong", "factory": "tinted_net:Tinted"},
    ]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content(arms, name="mine", eval_fractions=[0.5, 1.0])))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("tinted_net", None)


def test_it_is_compared_like_any_other(elsewhere: Path) -> None:
    outcome = isochron("run", "mine.yaml", "--quiet", "--out", "result")
    assert (outcome.code, outcome.err) == (0, "")
    folder = elsewhere / "result"
    assert [row["architecture"] for row in load(folder / "comparison.json")["arms"]] == ["tinted_net:Tinted"] * 2
    assert load(folder / "comparison.json")["arms"][0]["options"] == {"strength": 0.5}
    assert load(folder / "arms/tinted.json")["parameters"] == 12 * 3 + 3
    with zipfile.ZipFile(folder / "provenance/sources.zip") as archive:
        assert archive.read("outside/tinted_net.py").decode() == ARCHITECTURE
    assert isochron("verify", folder).code == 0
    assert isochron("replay", folder / "runs/strong/seed-0").code == 0
    (elsewhere / "tinted_net.py").write_text(ARCHITECTURE + "\n# changed\n")
    assert "tinted_net.py: has changed since" in isochron("extend", folder, "--seeds", 2).line


def test_probes_of_a_changed_file_are_not_taken_from_the_cache(elsewhere: Path) -> None:
    first = isochron("probe", "mine.yaml")
    assert first.code == 0, first.err
    assert "from the cache" in isochron("probe", "mine.yaml").out
    (elsewhere / "tinted_net.py").write_text(ARCHITECTURE + "\n# changed\n")
    assert "from the cache" not in isochron("probe", "mine.yaml").out


def test_check_names_what_it_misses(elsewhere: Path) -> None:
    outcome = isochron("check", "tinted_net:Tinted", "--set", "strength=0.5", "--json")
    assert outcome.out.startswith("[")
    assert outcome.code in (0, 1)


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"factory": "no_such_net:Tinted"}, "no module named 'no_such_net'; install it, or start from its folder"),
        ({"factory": "tinted_net:Missing"}, "the module has no 'Missing'"),
        ({"factory": "tinted_net"}, "write it as package.module:Name"),
        ({"factory": "tinted_net:Tinted", "options": {"strngth": 1}}, "does not take these options"),
        ({"factory": "builtins:dict"}, "gave a dict, not a torch.nn.Module"),
    ],
)
def test_mistakes_in_the_yaml_are_one_line_and_leave_no_run(elsewhere: Path, arm: dict[str, object], said: str) -> None:
    (elsewhere / "wrong.yaml").write_text(yaml.safe_dump(content([{"name": "tinted", **arm}])))
    outcome = isochron("run", "wrong.yaml", "--quiet", "--out", "result")
    assert said in outcome.line
    assert "arms.tinted" in outcome.line
    assert not list(elsewhere.rglob("run.json"))
