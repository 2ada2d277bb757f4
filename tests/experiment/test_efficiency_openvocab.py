"""Counting and timing of CAT-Seg: numbers that are known, the published way with the same values, calls that run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.experiment.efficiency import openvocab
from bench.experiment.efficiency.openvocab import OpenVocabulary
from bench.experiment.efficiency.openvocab_parts import PIECES, AsPublished, aggregator_shapes
from bench.experiment.efficiency.spec import Row, TimedCall, task_efficiency

CPU = torch.device("cpu")


def row_of(task: OpenVocabulary, label: str, mode: str, **sizes: int) -> Row:
    return next(
        row for row in task.rows if (row.label, row.mode) == (label, mode) and sizes.items() <= row.sizes.items()
    )


def counted(label: str, mode: str, **sizes: int) -> tuple[float, float]:
    """Closed form of a row in GFLOP, which what it executes on the meta device must equal, and its weights in millions."""
    task = OpenVocabulary()
    row = task.counted(row_of(task, label, mode, **sizes))
    with torch.device("meta"):
        module: Any = row.build().eval()
    assert next(iter(row.batch.values())).shape[0] == 1  # counts are of a sample
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(**{name: row.batch[name] for name in row.fields})
    assert counter.get_total_flops() == module.flops(row.batch)
    weights = sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
    return counter.get_total_flops() / 1e9, weights / 1e6


def test_rows_and_groups_are_unique_and_rounds_enough() -> None:
    spec = task_efficiency("openvocab")
    rows = [(row.label, row.mode, *sorted(row.sizes.items())) for row in spec.rows]
    assert len(set(rows)) == len(rows)
    for preset in ("tiny", "small", "paper"):
        groups = [tuple(sorted(group.items())) for group in spec.groups(preset)]
        assert len(set(groups)) == len(groups) > 0
    assert spec.rounds >= 6


# ---------------------------------------------------------------------------------------------------------- aggregators


@pytest.mark.parametrize(
    ("label", "classes", "pooling", "published", "parameters"),
    [
        ("2023-full-attention", 847, 1, 3392.7, 2.837),
        ("2023", 171, 2, 538.5, 2.837),
        ("2023-feature", 150, 1, 2097.3, 11.97),
        ("2024", 847, 1, 740.4, 2.637),
    ],
)
def test_aggregators_of_the_published_sizes(
    label: str, classes: int, pooling: int, published: float, parameters: float
) -> None:
    sizes = {"classes": classes, "pooling": pooling}
    again, weights = counted(label, "published", **sizes)
    assert again == pytest.approx(published, abs=0.06)
    assert weights == pytest.approx(parameters, abs=0.006)


def test_pieces_add_up_to_the_aggregator() -> None:
    pieces = [counted("2024", part, classes=150, pooling=1) for part in PIECES]
    whole = counted("2024", "full", classes=150, pooling=1)
    assert [sum(each) for each in zip(*pieces, strict=True)] == pytest.approx(whole)


def small(label: str) -> dict[str, Any]:
    """A design of an aggregator that runs in an instant."""
    width = 16
    shrunk: dict[str, Any] = {
        "feature_width": 12, "hidden_width": width, "resolution": [8, 8], "window_size": 4, "heads": 2,
        "text_guidance": [12, 8], "appearance_guidance": [12, 8], "decoder_guidance": [[6, 5], [4, 3]],
        "decoder_widths": [16, 16],
    }  # fmt: skip
    design = openvocab._design(label, 1)
    for name, value in design.items():  # what a design leaves out stays out
        if name.endswith("guidance") and value[1] in (0, [0, 0]):
            shrunk[name] = [shrunk[name][0], value[1]]
    return {
        **design,
        **shrunk,
        "class_padding": design.get("class_padding", 9),
        "prompts": min(design.get("prompts", 1), 2),
    }


@torch.inference_mode()
@pytest.mark.parametrize(
    ("label", "classes"),
    [
        ("2023", 3),
        ("2024", 5),
        ("2024", 11),  # more than padding allows
        ("unpadded-feature", 3),
        ("unpadded-no-guidance", 3),
        ("unpadded-conv", 3),
        ("unpadded-no-decoder", 3),
        ("unpadded-pooled", 3),
    ],
)
def test_the_published_way_gives_the_same_values_for_more_work(label: str, classes: int) -> None:
    torch.manual_seed(0)
    options = small("unpadded" if label == openvocab.POOLED else label)
    if label == openvocab.POOLED:
        options["pooling_size"] = [2, 2]
    model: Any = openvocab._build(openvocab.AGGREGATOR, openvocab._config(openvocab.AGGREGATOR, options)).eval()
    for weight in model.parameters():  # fillers begin as zeros
        torch.nn.init.normal_(weight, std=0.1)
    batch = openvocab._batch(aggregator_shapes(model.config, classes), CPU)
    again = AsPublished(model).eval()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        theirs = again(**batch)
    assert counter.get_total_flops() == again.flops(batch)
    torch.testing.assert_close(theirs, model(**batch)["logits"], atol=1e-5, rtol=1e-4)
    guided = label != "unpadded-no-guidance"
    assert (again.flops(batch) > model.flops(batch)) == guided


# ----------------------------------------------------------------------------------------------------- towers, networks


@pytest.mark.parametrize(
    ("label", "mode", "gflop", "parameters"),
    [
        ("clip-b", "image", 111.8, 86.2),
        ("swin-b", "image", 86.1, 59.6),
    ],
)
def test_towers_of_the_published_sizes(label: str, mode: str, gflop: float, parameters: float) -> None:
    ours, weights = counted(label, mode)
    assert weights == pytest.approx(parameters, abs=0.06)
    # The published dense block makes and projects queries and keys that nothing reads.
    wasteful = label.startswith("clip") and mode == "image"
    assert (0.97 if wasteful else 0.999) * gflop < ours < 1.001 * gflop


def closed_form(label: str, mode: str, **sizes: int) -> tuple[float, float]:
    """GFLOP and trainable weights in millions of a network, which is only built."""
    task = OpenVocabulary()
    row = task.counted(row_of(task, label, mode, **sizes))
    with torch.device("meta"):
        module: Any = row.build().eval()
    weights = sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
    return module.flops(row.batch) / 1e9, weights / 1e6


def test_steps_of_the_published_recipes() -> None:
    (graph, qv), (cached, image_alone) = (
        closed_form(label, "step", length=77) for label in ("2024-l", "2024-l-cached")
    )
    assert qv == pytest.approx(70.3, abs=0.06)
    assert image_alone == pytest.approx(70.3 - 2 * 12 * 768**2 / 1e6, abs=0.06)
    assert graph - cached == pytest.approx(2274, abs=1)
    assert closed_form("2024-l-blocks", "step", length=77)[1] == pytest.approx(393.1, abs=0.06)
    assert closed_form("2023-l", "whole", length=77)[1] == pytest.approx(490.3, abs=0.06)


def test_five_windows_are_five_times_one_but_for_the_text() -> None:
    five, one = (closed_form("2024-b", "picture", windows=windows)[0] for windows in (5, 1))
    assert five == pytest.approx(5 * one, rel=1e-3)
    assert five < 5 * one


# ---------------------------------------------------------------------------------------------------------------- timing


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> OpenVocabulary:
    """The task on aggregators, towers and pictures that are timed in an instant."""
    monkeypatch.setattr(openvocab, "_design", lambda label, pooling: {**designs[label], "pooling_size": [pooling] * 2})
    monkeypatch.setattr(openvocab, "WIDTHS", {8: (3,)})
    monkeypatch.setattr(openvocab, "CHUNK", 2)
    monkeypatch.setattr(openvocab, "STEPS", {})
    small_networks = {
        label: {**options, "image_layers": 1, "text_layers": 1} for label, options in openvocab.PICTURES.items()
    }
    monkeypatch.setattr(openvocab, "PICTURES", small_networks)
    return OpenVocabulary()


designs = {label: small(label) for label in openvocab.DESIGNS}


def calls_of(task: OpenVocabulary, **sizes: int) -> dict[str, TimedCall]:
    torch.manual_seed(0)
    models = {label: model.eval() for label, model in task.models("tiny").items()}
    calls = task.calls(models, sizes, "tiny", CPU, 0)
    return {f"{call.label}/{call.mode}": call for call in calls}


def run(call: TimedCall) -> torch.Tensor:
    """Its output, by as many FLOPs as it says."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = call.start().run()
    assert counter.get_total_flops() == call.flops, (call.label, call.mode)
    return output


@torch.inference_mode()
def test_every_way_of_an_aggregator_has_the_same_values(tiny: OpenVocabulary) -> None:
    calls = calls_of(tiny, classes=openvocab.AT, grid=24)
    assert {"2024/folded", "unpadded/chunked", "unpadded-feature/published", f"{openvocab.POOLED}/full"} <= set(calls)
    for name in ("2024/folded", "unpadded/published", "unpadded/chunked", "unpadded-feature/published"):
        torch.testing.assert_close(run(calls[name]), run(calls[f"{name.split('/')[0]}/full"]), atol=1e-5, rtol=1e-4)
    elsewhere = calls_of(tiny, classes=3, grid=24)
    assert set(elsewhere) == {f"{label}/full" for label in openvocab.PADDED} | {"2024/folded"}


@torch.inference_mode()
def test_class_attention_and_pictures_run(tiny: OpenVocabulary) -> None:
    made = calls_of(tiny, classes=3, places=16, width=8)
    assert set(made) == {f"class {kind}/{part}" for kind in ("linear", "full") for part in ("attention", "block")}
    assert run(made["class linear/attention"]).shape == run(made["class full/attention"]).shape == (16, 3, 4, 2)
    assert run(made["class linear/block"]).shape == run(made["class full/block"]).shape == (1, 3, 4, 4, 8)
    pictures = calls_of(tiny, classes=2, pixels=32)
    assert pictures["sliding/picture"].flops == pytest.approx(5 * pictures["single/picture"].flops, rel=1e-3)
    assert run(pictures["single/picture"]).shape == (1, 2, 32, 32)


@torch.inference_mode()
def test_a_step_runs_backward_though_nothing_else_does() -> None:
    options = {
        "hidden_width": 16, "resolution": [4, 4], "window_size": 4, "crop_size": 32, "image_widths": [16, 16, 16], "tower_heads": 2,
        "feature_width": 16, "text_guidance": [16, 8], "appearance_guidance": [16, 8], "decoder_guidance": [[16, 16], [4, 4]],
        "decoder_widths": [16, 16], "text_width": 16,
    }  # fmt: skip
    config = openvocab._config(openvocab.MODEL, options, "tiny")
    with torch.inference_mode(False):
        model = openvocab._build(openvocab.MODEL, config)
    batch = {"image": torch.rand(1, 3, 32, 32), "names": torch.randint(1, 99, (1, 2, 1, 5))}
    loss = openvocab._step(model, batch)
    assert loss.ndim == 0
    assert not loss.requires_grad
    assert all(weight.grad is None for weight in model.parameters())
