from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bench.experiment.tokens import _components, _norms, _watched
from tests.experiment.helpers import isochron, load


@pytest.fixture(scope="module")
def looked_at(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(real, tmp_path_factory.mktemp("tokens") / "result"))
    outcome = isochron("tokens", folder)
    assert outcome.code == 0, outcome.err
    return folder / "tokens"


def test_every_block_of_every_arm_is_measured(looked_at: Path) -> None:
    norms = load(looked_at / "norms.json")
    assert {arm: {stack: len(blocks) for stack, blocks in stacks.items()} for arm, stacks in norms.items()} == {
        "lvsm-decoder-only": {"transformer_blocks": 4},
        "efficient-lvsm": {"input_self_attn_blocks": 4, "self_cross_blocks": 4},
    }
    for stacks in norms.values():
        for blocks in stacks.values():
            assert [block["block"] for block in blocks] == [1, 2, 3, 4]
            assert all(0 < block["median"] <= block["p99"] <= block["maximum"] for block in blocks)


def test_pictures_and_figure_are_there(looked_at: Path) -> None:
    for name in ("lvsm-decoder-only-transformer_blocks", "efficient-lvsm-self_cross_blocks"):
        pixels = np.asarray(Image.open(looked_at / f"{name}.png"))
        assert pixels.ndim == 3
        assert pixels.std() > 0
    assert {"norms.png", "norms.pdf"} <= {path.name for path in looked_at.iterdir()}


def test_a_folder_without_weights_is_one_line(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "published"))
    for path in folder.glob("runs/*/*/checkpoint.safetensors"):
        path.unlink()
    assert "published results have no weights" in isochron("tokens", folder).line


def test_a_spike_is_found_in_its_block() -> None:
    class Spiking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Identity() for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for index, block in enumerate(self.blocks):
                x = block(x)
                if index == 0:
                    x = x.clone()
                    x[:, 5] *= 100
            return x

    model = Spiking()
    with _watched(model) as stacks:
        model(torch.nn.functional.normalize(torch.randn(2, 3, 16, 8), dim=-1)[:, 0])
    before, after, _ = (_norms(tokens) for tokens in stacks["blocks"])
    assert before == pytest.approx({"median": 1, "p99": 1, "maximum": 1}, rel=1e-5)
    assert after["median"] == pytest.approx(1, rel=1e-5)
    assert after["maximum"] == pytest.approx(100, rel=1e-5)
    assert not any(block._forward_hooks for block in model.blocks), "nothing stays behind"


def test_components_tell_the_last_view_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 8, generator=generator)
    columns = torch.stack([left, left, right, right])
    view = columns.repeat(4, 1) + 0.01 * torch.randn(16, 8, generator=generator)
    tokens = torch.cat([torch.randn(16, 8, generator=generator), view])[None]
    picture = np.asarray(Image.open(io.BytesIO(_components([tokens], (4, 4))))).astype(int)
    tile = picture.shape[1] // 4
    first = picture[4 : 3 * tile, tile // 2, 0]
    last = picture[4 : 3 * tile, 3 * tile - tile // 2, 0]
    assert abs(first.mean() - last.mean()) > 200
