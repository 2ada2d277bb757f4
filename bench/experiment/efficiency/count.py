"""Counts one row on the meta device: parameters, FLOPs three ways, and what hooks on linear layers see."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from bench.contracts import Batch
from bench.engine.flops import triangulate
from bench.engine.launch import PRELOAD, run_isolated
from bench.experiment.efficiency.spec import Row, task_efficiency

TIMEOUT_S = 300.0


def count(task: str, row: Row) -> dict[str, Any]:
    """Count a row in a process of its own (tracing slows what is compiled or timed later in the same one).

    Raises:
        UserError: the counters disagree, or an option of the row is wrong.
    """
    preload = (*PRELOAD, "bench.experiment.efficiency.count")
    counted: dict[str, Any] = run_isolated(count_here, task, row, timeout_s=TIMEOUT_S, preload=preload)
    return counted


def count_here(task: str, row: Row) -> dict[str, Any]:
    """A row of the task, counted in this process: a line of ``counts.jsonl``."""
    counted = task_efficiency(task).counted(row)
    report = triangulate(counted.build, counted.batch, counted.fields, arm=row.label, require_closed_form=True)
    with torch.device("meta"):
        module = counted.build().eval()
    macs, norms = layer_counts(module, {name: counted.batch[name] for name in counted.fields})
    return {
        "label": row.label,
        "mode": row.mode,
        "architecture": row.architecture,
        "options": dict(row.options),
        "sizes": dict(row.sizes),
        "parameters": sum(weight.numel() for weight in module.parameters() if weight.requires_grad),
        "counters": report.counters,
        "parts": _parts(module, counted.batch),
        "training_flops": report.training_per_sample,
        "linear_macs": macs,
        "norm_ops": norms,
        "convention": report.convention,
    }


def _parts(module: nn.Module, batch: Batch) -> dict[str, int]:
    """Closed forms of encoder and decoder where the module offers both."""
    parts = {
        part: getattr(module, f"{name}_flops", None) for part, name in (("encoder", "encode"), ("decoder", "decode"))
    }
    return {part: int(flops(batch)) for part, flops in parts.items() if flops} if all(parts.values()) else {}


def layer_counts(module: nn.Module, inputs: Batch) -> tuple[int, int]:
    """What module hooks see of one forward pass: multiply-adds of ``nn.Linear``, operations of ``nn.LayerNorm``.

    This is how thop and its like count: attention's two matrix products belong to no such layer and are not seen. A norm is
    2 operations a number, 4 where it has weights (thop's rule).
    """
    seen = {"linear": 0, "norm": 0}

    def linear(layer: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        seen["linear"] += prod(output.shape) * layer.in_features

    def norm(layer: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(layer, nn.LayerNorm)
        seen["norm"] += prod(output.shape) * (4 if layer.elementwise_affine else 2)

    hooks = [
        layer.register_forward_hook(linear if isinstance(layer, nn.Linear) else norm)
        for layer in module.modules()
        if isinstance(layer, nn.Linear | nn.LayerNorm)
    ]
    try:
        with torch.no_grad():
            module(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return seen["linear"], seen["norm"]
