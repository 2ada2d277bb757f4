"""Counting and timing of masked autoencoders: numbers that are known, shapes of the notes, training steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.experiment.efficiency import hydrology, masked_image
from bench.experiment.efficiency.count import count_here
from bench.experiment.efficiency.spec import TaskEfficiency, TimedCall, task_efficiency

CPU = torch.device("cpu")
TASKS = ("hydrology", "masked-image")


def parts(task: TaskEfficiency, label: str, **sizes: int) -> tuple[float, float]:
    """Closed-form GFLOP of encoder and decoder of a row."""
    row = next(row for row in task.rows if row.label == label and sizes.items() <= row.sizes.items())
    counted = task.counted(row)
    with torch.device("meta"):
        model: Any = counted.build()
    return model.encode_flops(counted.batch) / 1e9, model.decode_flops(counted.batch) / 1e9


@pytest.mark.parametrize("task", TASKS)
def test_rows_and_groups_are_unique(task: str) -> None:
    spec = task_efficiency(task)
    rows = [(row.label, *sorted(row.sizes.items())) for row in spec.rows]
    assert len(set(rows)) == len(rows)
    for preset in ("tiny", "small", "paper"):
        groups = [tuple(sorted(group.items())) for group in spec.groups(preset)]
        assert len(set(groups)) == len(groups) > 0


def test_rounds_are_enough_for_an_interval() -> None:
    assert all(task_efficiency(task).rounds >= 6 for task in ("nvs", *TASKS))


# ------------------------------------------------------------------------------------------------------------ hydrology


@pytest.mark.parametrize(
    ("days", "mae", "cross", "third"),
    [(1, 0.17, 0.11, 3.69), (12, 4.43, 1.77, 6.37), (30, 20.85, 6.28, 8.82), (90, 160.3, 37.45, 12.03)],
)
def test_decoders_of_the_notes(days: int, mae: float, cross: float, third: float) -> None:
    task = hydrology.Hydrology()
    decoders = {label: parts(task, label, days=days, hidden=70)[1] for label in ("mae", "cross", "cross-p25")}
    assert (decoders["mae"], decoders["cross"]) == (
        pytest.approx(mae, abs=0.005, rel=1e-3),
        pytest.approx(cross, rel=3e-3),
    )
    assert decoders["mae"] / decoders["cross-p25"] == pytest.approx(third, abs=0.01)


@pytest.mark.parametrize(("sizes", "decoder", "step"), [
    ({"hidden": 37}, 3.81, 1.47), ({"hidden": 56}, 3.66, 1.79), ({"hidden": 70, "width": 128}, 4.28, 2.42),
    ({"hidden": 84}, 6.53, 4.57), ({"width": 64}, 4.69, None), ({"width": 512}, 3.06, None), ({"width": 768}, 2.70, None),
])  # fmt: skip
def test_ratios_of_the_notes(sizes: dict[str, int], decoder: float, step: float | None) -> None:
    task = hydrology.Hydrology()
    mae, cross = (parts(task, label, days=90, patches=94, **sizes) for label in ("mae", "cross"))
    assert mae[1] / cross[1] == pytest.approx(decoder, abs=0.01)
    if step is not None:
        assert sum(mae) / sum(cross) == pytest.approx(step, abs=0.01)


def test_the_standard_mae_of_the_notes() -> None:
    _, decoder = parts(hydrology.Hydrology(), "mae", patches=522)
    assert decoder == pytest.approx(4595, rel=1e-3)


def test_a_row_is_counted_in_parts_that_add_up() -> None:
    rows = hydrology.Hydrology.rows
    record = count_here("hydrology", next(row for row in rows if row.label == "cross" and row.sizes["days"] == 1))
    assert set(record["parts"]) == {"encoder", "decoder"}
    assert sum(record["parts"].values()) == record["counters"]["torch"] == record["counters"]["fvcore"]
    assert record["training_flops"] == pytest.approx(3 * record["counters"]["torch"], rel=5e-3)


def test_a_batch_hides_as_many_patches_every_day_and_none_is_seen_and_predicted() -> None:
    batch = hydrology._batch({"days": 5, "patches": 94, "hidden": 70}, 2)
    visible, predicted = batch["image_visible"], batch["image_predicted"]
    assert torch.equal(visible, visible.sort(dim=-1).values)
    assert torch.equal(torch.cat([visible, predicted], dim=-1).sort(dim=-1).values, torch.arange(470).expand(2, 1, -1))
    per_day = torch.nn.functional.one_hot(predicted // 94, 5).sum(dim=2)
    assert torch.equal(per_day, torch.full((2, 1, 5), 70))
    assert not torch.equal(predicted, predicted.sort(dim=-1).values)


def test_the_notes_shapes_are_timed_on_a_cpu() -> None:
    groups = hydrology.Hydrology().groups("tiny")
    (layer,) = [group for group in groups if group["days"] == 90 and not group["encoder_layers"]]
    assert (layer["batch"], layer["decoder_layers"], layer["width"], layer["encoder_width"]) == (8, 1, 128, 256)
    (step,) = [group for group in groups if group["days"] == 90 and group["encoder_layers"]]
    assert (step["decoder_layers"], step["encoder_layers"]) == (4, 6)


@pytest.fixture(scope="module")
def calls() -> dict[str, TimedCall]:
    task = hydrology.Hydrology()
    models = task.models("tiny")
    made = {}
    for sizes in task.groups("tiny"):
        if sizes["days"] == 1:
            made |= {f"{call.label}/{call.mode}": call for call in task.calls(models, sizes, "tiny", CPU, 0)}
    return made


def test_decoders_and_steps_of_every_design_are_timed(calls: dict[str, TimedCall]) -> None:
    assert set(calls) == {f"{label}/{mode}" for label in hydrology.DESIGNS for mode in ("decoder", "step")}


def test_the_flops_of_a_training_call_are_those_that_it_executes(calls: dict[str, TimedCall]) -> None:
    for name, call in calls.items():
        run = call.start().run
        with (
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            loss = run()
        # What the data alone flows into has no gradient: patches into their embedding.
        assert counter.get_total_flops() == pytest.approx(call.flops, rel=5e-3), name
        assert torch.isfinite(loss)
        assert not loss.requires_grad


def test_the_timed_decoder_is_the_very_one_of_the_architecture() -> None:
    task = hydrology.Hydrology()
    models = task.models("tiny")
    (sizes,) = [group for group in task.groups("tiny") if group["days"] == 1 and not group["encoder_layers"]]
    for call in task.calls(models, sizes, "tiny", CPU, 0):
        model: Any = models[f"{call.label}-4"]
        seen: list[tuple[int, ...]] = []
        hook = model.decoders[0].register_forward_hook(lambda *call, seen=seen: seen.append(tuple(call[2].shape)))
        call.start().run()
        hook.remove()
        assert seen == [(8, 24 if call.label == "cross-p25" else 70, hydrology.PIXELS)]
        assert all(weight.grad is None for weight in model.parameters())


# --------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("label", "px", "encoder", "decoder"),
    [
        ("vit-s/mae-8", 224, 2.285, 2.884),
        ("vit-s/crossmae-12-maps-p25", 224, 2.285, 1.062),
        ("vit-b/mae-8", 224, 8.817, 10.745),
        ("vit-b/crossmae-8", 224, 8.817, 7.03),
        ("vit-b/crossmae-8-self", 224, 8.817, 9.85),
        ("vit-b/crossmae-12", 224, 8.817, 10.49),
        ("vit-b/crossmae-12-maps", 224, 8.817, 10.50),
        ("vit-b/crossmae-12-maps-p25", 224, 8.817, 4.14),
        ("vit-b/crossmae-1-p25", 224, 8.817, 0.38),
        ("vit-b/mae-8", 448, 35.82, 50.38),
        ("vit-b/crossmae-12-maps", 448, 35.82, 44.07),
        ("vit-l/crossmae-12-maps-p25", 224, 30.75, 4.47),
        ("vit-h/mae-8", 224, 82.87, 14.26),
        ("vit-h/crossmae-12-maps-p25", 224, 82.87, 6.28),
    ],
)
def test_forward_computation_of_the_published_models(label: str, px: int, encoder: float, decoder: float) -> None:
    found = parts(masked_image.MaskedImage(), label, image_size=px, mask_percent=75)
    assert found == (pytest.approx(encoder, rel=5e-4), pytest.approx(decoder, abs=0.005))


def test_an_image_step_is_a_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(masked_image.SIZES, "vit-b", {"patch_size": 16, "width": 64, "layers": 1, "heads": 2})
    monkeypatch.setattr(masked_image, "TIMED", (masked_image.MAE, masked_image.THIRD))
    task = masked_image.MaskedImage()
    models = task.models("tiny")
    sizes = {**task.groups("tiny")[0], "image_size": 224, "batch": 2}
    calls = task.calls(models, sizes, "tiny", CPU, 0)
    assert [call.label for call in calls] == [f"vit-b/{design}" for design in masked_image.TIMED]
    for call in calls:
        with (
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            loss = call.start().run()
        assert counter.get_total_flops() == pytest.approx(call.flops, rel=0.05)
        assert torch.isfinite(loss)
        assert all(weight.grad is None for weight in models[call.label].parameters())
