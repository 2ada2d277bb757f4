from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from baselines.lvsm_encoder_decoder import LVSMEncoderDecoder, LVSMEncoderDecoderConfig
from bench.experiment.tokens import _components, _norms, _parts, _watched
from models.efficient_lvsm import EfficientLVSM, EfficientLVSMConfig
from tests.experiment.helpers import isochron, load
from tests.models.helpers import random_batch

pytestmark = pytest.mark.slow


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


def parts_of(model: nn.Module, size: int = 32) -> tuple[dict[str, list[torch.Tensor]], list[str]]:
    """Tokens of three input and two target views a scene, and which of them can be painted."""
    with torch.inference_mode(), _watched(model.eval()) as stacks:
        model(**random_batch(2, 3, 2, (size, size)))
    return _parts(model, stacks, (size // 8) ** 2)


def shapes(parts: dict[str, list[torch.Tensor]]) -> dict[str, tuple[int, ...]]:
    assert all(len(blocks) == 2 for blocks in parts.values())
    return {name: tuple(blocks[-1].shape) for name, blocks in parts.items()}


@pytest.mark.parametrize("latents", [24, 16])
def test_latents_are_no_patches(latents: int) -> None:
    config = LVSMEncoderDecoderConfig(width=64, encoder_layers=2, decoder_layers=2, latents=latents)
    torch.manual_seed(0)
    model, decoded = LVSMEncoderDecoder(config), []
    model.image_token_decoder.register_forward_pre_hook(lambda _module, inputs: decoded.append(inputs[0]))
    parts, painted = parts_of(model)
    assert shapes(parts) == {
        "transformer_encoder.latents": (2, latents, 64),
        "transformer_encoder.inputs": (6, 16, 64),
        "transformer_decoder.targets": (4, 16, 64),
        "transformer_decoder.latents": (4, latents, 64),
    }
    assert painted == ["transformer_encoder.inputs", "transformer_decoder.targets"]
    assert torch.equal(parts["transformer_decoder.targets"][-1], decoded[0].flatten(0, 1))


@pytest.mark.parametrize("scope", ["local", "global"])
def test_registers_are_no_patches(scope: str) -> None:
    config = EfficientLVSMConfig(width=64, layers=2, registers=3, input_scope=scope)
    model, decoded = EfficientLVSM(config), []
    model.image_token_decoder.register_forward_pre_hook(lambda _module, inputs: decoded.append(inputs[0]))
    parts, painted = parts_of(model)
    assert shapes(parts) == {
        "input_self_attn_blocks.registers": (6, 3, 64),
        "input_self_attn_blocks.inputs": (6, 16, 64),
        "self_cross_blocks.registers": (4, 3, 64),
        "self_cross_blocks.targets": (4, 16, 64),
    }
    assert painted == ["input_self_attn_blocks.inputs", "self_cross_blocks.targets"]
    assert torch.equal(parts["self_cross_blocks.targets"][-1], decoded[0].flatten(0, 1))


def test_both_streams_are_seen_where_they_share_weights() -> None:
    parts, painted = parts_of(EfficientLVSM(EfficientLVSMConfig(width=64, layers=2, shared_weights=True)))
    assert shapes(parts) == {"input_self_attn_blocks": (6, 16, 64), "self_cross_blocks": (4, 16, 64)}
    assert sorted(painted) == sorted(parts)


def test_maps_of_a_trained_encoder_are_no_tokens() -> None:
    encoder = {"name": "alexnet", "frozen": False, "input_size": 64}
    model = EfficientLVSM(EfficientLVSMConfig(width=64, layers=2, encoder=encoder))
    assert any(name.startswith("image_encoder") for name, m in model.named_modules() if isinstance(m, nn.ModuleList))
    parts, _ = parts_of(model)
    assert set(parts) == {"input_self_attn_blocks", "self_cross_blocks"}


def test_what_holds_fewer_tokens_than_patches_is_measured_and_not_painted() -> None:
    pooled = {"blocks": [torch.randn(2, 5, 8)], "whole": [torch.randn(2, 17, 8)]}
    parts, painted = _parts(nn.Module(), pooled, 16)
    assert set(parts) == set(pooled)
    assert painted == ["whole"]
