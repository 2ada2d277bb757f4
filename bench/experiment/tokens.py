"""Tokens behind every block of the trained arms: how large they are, and what their principal components look like.

Transformers that see images may grow a few tokens of enormous norm, or a grid. Both are found by looking: a block is every
entry of a ``ModuleList`` that gives a tensor of tokens, [..., T, D], whatever the architecture; networks that were trained
elsewhere, which stand under ``image_encoder``, are left out. An architecture whose sequences hold more than patches may
offer ``token_parts(stack, tokens, patches)``: from a stack's name, its tokens [N, T, D] and the number of patches of an image
to the parts by name, [N', T', D] each. Parts are measured apart, and only ``inputs`` and ``targets`` are painted.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from bench import config as configuration
from bench.console import Console
from bench.contracts import Task
from bench.errors import UserError
from bench.experiment import resolve
from bench.store.files import write_bytes, write_json
from bench.store.read import Run, open_comparison

SAMPLES = 8
"""The first training samples: a property of the weights is looked at, not a score."""
PICTURES = 3
"""Samples whose principal components are painted."""
TILE = 96
"""Least edge of a painted tile in pixels."""
PATCHES = ("inputs", "targets")
"""The parts of a sequence that end with the patches of an image."""
TRAINED_ELSEWHERE = frozenset({"image_encoder", "repa_projector"})
"""Submodules that are not looked into."""


def diagnose(folder: Path, *, console: Console, cache_dir: Path) -> dict[str, Any]:
    """Measure the first finished run of every arm in `folder`; write ``tokens/`` with the numbers and a picture each.

    Returns:
        Arm -> stack of blocks (``STACK.PART`` where it has several parts) -> one record a block: ``block``, and the
        ``median``, 99 % quantile ``p99`` and ``maximum`` of the tokens' L2 norms.

    Raises:
        UserError: the folder holds no finished run with its weights, or none whose blocks give tokens.
    """
    found: dict[str, Any] = {}
    for arm in (comparison := open_comparison(folder)).arms:
        run = next((run for run in comparison.runs_of(arm) if run.finished), None)
        if run is None or not (run.folder / "checkpoint.safetensors").is_file():
            console.say(f"{arm.name}: left out, it has no finished run with its weights")
            continue
        stacks, grid, painted = _tokens(run, console, cache_dir)
        found[arm.name] = {
            stack: [{"block": index, **_norms(tokens)} for index, tokens in enumerate(blocks, start=1)]
            for stack, blocks in stacks.items()
        }
        for stack in painted:
            picture = _components(stacks[stack], grid)
            write_bytes(folder / "tokens" / f"{arm.name}-{stack}.png", picture)
    if not any(found.values()):
        raise UserError(
            f"{folder}: holds no finished run with weights whose blocks give tokens; published results have no weights"
        )
    write_json(folder / "tokens" / "norms.json", found)
    return found


def _tokens(run: Run, console: Console, cache_dir: Path) -> tuple[dict[str, list[Tensor]], tuple[int, int], list[str]]:
    """Tokens [N, T, D] behind each block of each stack for the first training samples.

    Returns:
        The tokens, rows and columns of an image's patches, and the stacks whose sequences end with an image's patches.
    """
    comparison = configuration.load(run.folder / "config.yaml")
    task: Task = resolve.make_task(comparison, cache_dir)
    with console.counting() as report:
        task.prepare(report)
    model = resolve.build(resolve.expand_arms(comparison)[0].config)
    model.load_state_dict(load_file(run.folder / "checkpoint.safetensors"))
    samples = np.arange(min(SAMPLES, task.training_size()))
    batch = task.transfer(task.collate(samples, samples.astype(np.uint64)), torch.device("cpu"))
    with torch.inference_mode(), _watched(model.eval()) as stacks:
        model(**{name: batch[name] for name in task.input_fields})
    patch_size = getattr(getattr(model, "config", None), "patch_size", None)
    image = next((value for name, value in batch.items() if name.endswith("images")), None)
    if patch_size is None or image is None:
        return stacks, (0, 0), []
    grid = image.shape[-2] // patch_size, image.shape[-1] // patch_size
    parts, painted = _parts(model, stacks, grid[0] * grid[1])
    return parts, grid, painted


def _parts(
    model: nn.Module, stacks: dict[str, list[Tensor]], patches: int
) -> tuple[dict[str, list[Tensor]], list[str]]:
    """Each stack, or each part of its sequences where the model tells several apart; and those that can be painted."""
    split = getattr(model, "token_parts", lambda stack, tokens, patches: {PATCHES[0]: tokens})
    found: dict[str, list[Tensor]] = {}
    painted: list[str] = []
    for stack, blocks in stacks.items():
        by_block = [split(stack, tokens, patches) for tokens in blocks]
        for part in by_block[0]:
            name = f"{stack}.{part}" if len(by_block[0]) > 1 else stack
            found[name] = [parts[part] for parts in by_block]
            if part in PATCHES and all(tokens.shape[1] >= patches for tokens in found[name]):
                painted.append(name)
    return found, painted


@contextmanager
def _watched(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Collect what the entries of every ``ModuleList`` of `model` give, where it is tokens, as [N, T, D] fp32."""
    stacks: dict[str, list[Tensor]] = {}
    handles = []

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim >= 3:
                stacks.setdefault(name, []).append(output.detach().float().flatten(0, -3))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and TRAINED_ELSEWHERE.isdisjoint(name.split(".")):
            handles += [block.register_forward_hook(keep(name)) for block in module]
    try:
        yield stacks
    finally:
        for handle in handles:
            handle.remove()


def _norms(tokens: Tensor) -> dict[str, float]:
    norms = tokens.norm(dim=-1).flatten()
    return {
        "median": norms.median().item(),
        "p99": norms.quantile(0.99).item(),
        "maximum": norms.max().item(),
    }


def _components(blocks: list[Tensor], grid: tuple[int, int]) -> bytes:
    """PNG: one column a block, one row a sequence; the first three principal components of its last view as red, green, blue.

    The last tokens of a sequence are taken: those of the target where inputs and target share one sequence.
    """
    height, width = grid
    columns = []
    for tokens in blocks:
        rows = tokens[:: max(1, len(tokens) // PICTURES)][:PICTURES, -height * width :]
        rows = rows - rows.mean(dim=1, keepdim=True)
        _, _, directions = torch.linalg.svd(rows, full_matrices=False)
        axes = directions[:, :3]
        # A direction's sign is arbitrary: the largest entry is made positive, so that neighbouring blocks look alike.
        largest = axes.gather(2, axes.abs().argmax(dim=2, keepdim=True))
        scores = (rows @ (axes * largest.sign()).transpose(1, 2)).unflatten(1, (height, width))
        low, high = scores.amin(dim=(1, 2), keepdim=True), scores.amax(dim=(1, 2), keepdim=True)
        columns.append(((scores - low) / (high - low).clamp(min=1e-12) * 255).round().byte())
    factor = -(-TILE // width)
    tiles = torch.stack(columns, dim=2)  # [rows, height, blocks, width, 3]
    pixels = tiles.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=3)
    pixels = torch.nn.functional.pad(pixels, (0, 0, 0, 4, 0, 0, 0, 4), value=255)
    buffer = io.BytesIO()
    Image.fromarray(pixels.flatten(0, 1).flatten(1, 2).numpy()).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
