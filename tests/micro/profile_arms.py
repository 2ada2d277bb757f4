"""Where the time of forward and backward goes, by kind of work: ``python -m tests.micro.profile_arms``.

Prints, for both arms at 2 -> 2 and 8 -> 6 views (64 px, width 128, 4 layers, one CPU thread), the share of each kind of
operator in the total self time that torch.profiler sees.
"""

import torch
from torch.profiler import ProfilerActivity, profile

from baselines.lvsm import PRESETS as LVSM_PRESETS
from baselines.lvsm import LVSMDecoderOnly
from models.efficient_lvsm import PRESETS as EFFICIENT_PRESETS
from models.efficient_lvsm import EfficientLVSM
from tests.models.helpers import random_batch

KINDS = {
    "matrix products": ("aten::mm", "aten::bmm", "aten::addmm"),
    "attention (SDPA)": ("aten::_scaled_dot_product",),
    "GELU": ("aten::gelu",),
    "LayerNorm": ("aten::native_layer_norm",),
    "copies (cat, copy_, fill_)": ("aten::cat", "aten::copy_", "aten::fill_", "aten::zero_"),
    "elementwise (QK-norm, residuals, rays, loss)": (
        *("aten::mul", "aten::add", "aten::div", "aten::pow", "aten::sum", "aten::mean", "aten::rsqrt", "aten::neg"),
        *("aten::sub", "aten::sqrt", "aten::sigmoid", "aten::_fused_rms_norm", "aten::arange"),
    ),
}
OTHER = "dispatch and the rest"


def shares(model, batch, steps=10):
    """Share of each kind in the self time of ``steps`` training steps."""

    def step():
        model(**batch)["images"].square().mean().backward()
        model.zero_grad(set_to_none=True)

    for _ in range(3):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step()
    times = dict.fromkeys([*KINDS, OTHER], 0.0)
    for event in profiler.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key.startswith(names)), OTHER)
        times[kind] += event.self_cpu_time_total
    return {kind: time / sum(times.values()) for kind, time in times.items()}


def main():
    torch.set_num_threads(1)
    columns = {}
    for input_views, target_views, scenes in ((2, 2, 4), (8, 6, 1)):
        batch = random_batch(scenes, input_views, target_views, (64, 64))
        for name, model in (
            ("decoder-only", LVSMDecoderOnly(LVSM_PRESETS["tiny"])),
            ("dual stream", EfficientLVSM(EFFICIENT_PRESETS["tiny"])),
        ):
            columns[f"{name} {input_views} -> {target_views}"] = shares(model, batch)
    print("| kind of work | " + " | ".join(columns) + " |")
    print("|---|" + "--:|" * len(columns))
    for kind in [*KINDS, OTHER]:
        print(f"| {kind} | " + " | ".join(f"{column[kind]:.1%}" for column in columns.values()) + " |")


if __name__ == "__main__":
    main()
