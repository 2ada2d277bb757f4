"""Varying inputs: masks that hide what a sample may not see, and more or fewer inputs at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.conformance import check
from tests.planted import TinyNVS
from tests.tasks.nvs_data import CPU, DRAWS, wandering_task


def test_without_the_option_there_is_no_mask(make_task) -> None:
    for task in (make_task(), make_task(input_views=3, min_input_views=3)):
        assert "input_mask" not in task.input_fields
        assert "input_mask" not in task.collate(np.arange(3), DRAWS[:3])
        assert len(task.symmetries) == 1


def test_masked_views_show_nothing_that_the_sample_may_not_see(make_task) -> None:
    task = make_task(input_views=4, min_input_views=1)
    indices = np.arange(40)
    draws = indices.astype(np.uint64)
    batch, full = task.collate(indices, draws), make_task(input_views=4).collate(indices, draws)
    mask = batch["input_mask"]
    assert mask.dtype == torch.bool
    assert set(mask.sum(dim=1).tolist()) == {1, 2, 3, 4}
    for name in ("input_images", "input_c2w", "input_intrinsics"):
        assert torch.equal(batch[name][mask], full[name][mask])
        assert torch.equal(batch[name][~mask], batch[name][:, :1].expand_as(batch[name])[~mask])
    assert torch.equal(batch["target_images"], full["target_images"])
    part = task.collate(indices[5:7], draws[5:7])
    assert all(torch.equal(part[name], batch[name][5:7]) for name in batch), "the stream depends on the batch"


def test_masked_views_do_not_shape_the_frame(tmp_path: Path) -> None:
    task = wandering_task(tmp_path, frame="inputs", input_views=4, min_input_views=1)
    batch = task.collate(np.arange(12), DRAWS)
    for sample, mask in enumerate(batch["input_mask"]):
        centres = batch["input_c2w"][sample, mask, :3, 3]
        assert centres.mean(dim=0).numpy() == pytest.approx(0, abs=1e-5), (
            "the origin is the mean of those that are there"
        )


def test_evaluation_has_all_inputs(make_task) -> None:
    seen = []

    class Watcher(TinyNVS):
        def forward(self, input_mask, **inputs):
            seen.append(input_mask)
            return super().forward(**inputs)

    make_task(input_views=3, min_input_views=1, extra_input_views=(5,)).evaluate(Watcher().eval(), CPU, split="ood")
    assert {mask.shape[1] for mask in seen} == {3, 5}
    assert all(mask.all() for mask in seen)


def test_probes_and_edge_cases_have_masks(make_task) -> None:
    task = make_task(input_views=4, min_input_views=2)
    real, made = task.collate(np.arange(3), DRAWS[:3]), task.worst_case(3)
    assert {name: (v.shape, v.dtype) for name, v in real.items()} == {n: (v.shape, v.dtype) for n, v in made.items()}
    assert made["input_mask"].all()
    assert task.synthetic(3, 0)["input_mask"][0].tolist() == [True, True, False, False]
    edges = task.edge_cases(2)
    assert edges["only the last input view"]["input_mask"].tolist() == [[False, False, False, True]] * 2
    assert all(batch["input_mask"].any(dim=1).all() for batch in edges.values())


class Masked(TinyNVS):
    """Averages the views that are there."""

    def forward(self, input_images, input_c2w, input_intrinsics, input_mask, **inputs):
        weight = input_mask / input_mask.sum(dim=1, keepdim=True) * input_mask.shape[1]

        def weighed(value):
            return torch.where(_over(input_mask, value), value, 0) * _over(weight, value)

        views = (weighed(value) for value in (input_images, input_c2w, input_intrinsics))
        return super().forward(
            **dict(zip(("input_images", "input_c2w", "input_intrinsics"), views, strict=True)), **inputs
        )


def _over(mask, value):
    return mask.reshape(*mask.shape, *[1] * (value.ndim - 2))


class Ignorant(TinyNVS):
    """Takes the mask and looks at everything."""

    def forward(self, input_mask, **inputs):
        return super().forward(**inputs)


def test_check_finds_who_does_not_honour_the_mask(make_task) -> None:
    task = make_task(input_views=3, min_input_views=1)

    def failed(build) -> str:
        return " ".join(f.detail for f in check(build, task) if not f.passed and f.name != "all other checks")

    assert "forward does not take input_mask" in failed(lambda: Strict())
    assert "what masked input views hold" in failed(Ignorant)
    assert "masked" not in failed(Masked)


class Strict(nn.Module):
    """Knows nothing of masks."""

    def forward(self, input_images, input_c2w, input_intrinsics, target_c2w, target_intrinsics):
        return {"images": input_images[:, :1].expand(-1, target_c2w.shape[1], -1, -1, -1)}


def test_the_same_targets_are_painted_from_other_numbers_of_inputs(make_task) -> None:
    class CountsInputs(nn.Module):
        def forward(self, input_images, target_c2w, **others):
            shape = (*target_c2w.shape[:2], *input_images.shape[2:])
            return {"images": torch.full(shape, input_images.shape[1] / 10)}

    class Constant(CountsInputs):
        def forward(self, input_images, **others):
            return super().forward(input_images=input_images.new_zeros(len(input_images), 4, 3, 32, 32), **others)

    task = make_task(extra_input_views=(1, 4))
    assert [metric.name for metric in task.metrics] == ["psnr", "ssim", "psnr_1in", "psnr_4in"]
    assert [metric.label for metric in task.metrics[2:]] == ["PSNR, 1 input (dB)", "PSNR, 4 inputs (dB)"]
    records = task.evaluate(CountsInputs(), CPU)
    expected = make_task(extra_input_views=()).evaluate(Constant(), CPU)
    assert [r["sample"] for r in records] == [r["sample"] for r in expected]
    assert [r["psnr_4in"] for r in records] == [r["psnr"] for r in expected]
    assert all(record["psnr_1in"] != record["psnr"] for record in records)
    for cheap in (task.evaluate(Constant(), CPU, quick=True), task.evaluate(Constant(), CPU, split="validation")):
        assert not {"psnr_1in", "psnr_4in"} & set(cheap[0])


def test_references_see_as_many_inputs_as_the_arms(make_task) -> None:
    assert "psnr_8in" not in make_task(extra_input_views=(8,)).references("validation")[0]["metrics"]
    nearest = next(r for r in make_task(extra_input_views=(8,)).references() if r["name"] == "nearest-view")
    assert nearest["metrics"]["psnr_8in"] > nearest["metrics"]["psnr"] + 1, "more inputs, a nearer one"
