"""Pictures for the eye: what the trained arms paint, side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from bench.contracts import Task
from bench.experiment import resolve
from bench.experiment.resolve import Arm
from bench.store.files import write_bytes
from bench.store.write import RunFolder


def write(path: Path, runs: Sequence[tuple[Arm, RunFolder]], task: Task, device: torch.device) -> None:
    """Write the task's grid of test views, painted with the final weights of the finished ones among `runs`, as a PNG."""
    models = {}
    for arm, run in runs:
        if run.outcome is not None and run.outcome["status"] == "finished":
            model = resolve.build(arm.config)
            model.load_state_dict(load_file(run.folder / "checkpoint.safetensors"))
            models[arm.name] = model.to(device).eval()
    if not models:
        return
    with torch.inference_mode():
        grid = task.pictures(models, device)
    if grid is not None:
        buffer = io.BytesIO()
        Image.fromarray(grid).save(buffer, format="PNG", optimize=True)
        write_bytes(path, buffer.getvalue())
