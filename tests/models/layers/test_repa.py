"""REPA: the published keys, the published average, gradients to projector and tokens only, and a stop that costs nothing."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.layers.image_encoder import ImageEncoder, ImageEncoderConfig
from models.layers.repa import Repa, RepaConfig

TEACHER = ImageEncoderConfig("alexnet", input_size=0)
WIDTH, HIDDEN = 32, 64


def config(**options: object) -> RepaConfig:
    return RepaConfig(**{"teacher": TEACHER, "pairs": ((2, 1), (5, 3)), "hidden": HIDDEN, **options})


def batch_and_outputs(scenes: int = 2, inputs: int = 2, targets: int = 3) -> tuple[dict, dict]:
    generator = torch.Generator().manual_seed(2)
    batch = {
        "input_images": torch.rand(scenes, inputs, 3, 48, 64, generator=generator),
        "target_images": torch.rand(scenes, targets, 3, 48, 64, generator=generator),
    }
    outputs = {
        f"repa.{stream}.{layer}": torch.randn(scenes, views, 6 * 8, WIDTH, generator=generator).requires_grad_()
        for stream, views in (("input", inputs), ("target", targets))
        for layer in (1, 3)
    }
    return batch, outputs


def by_hand(kind: str, projected: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the patches of one view, [P, F] each."""
    if kind == "cos":
        cosine = (projected * labels).sum(-1) / (projected.norm(dim=-1) * labels.norm(dim=-1))
        return -cosine.mean()
    error = (projected - labels).abs()
    if kind == "mse":
        return error.pow(2).mean()
    return torch.where(error < 1, 0.5 * error**2, error - 0.5).mean()


@pytest.mark.parametrize("kind", ["cos", "mse", "smooth-l1"])
@pytest.mark.parametrize("on", ["inputs", "targets", "both"])
def test_the_loss_is_a_sum_over_streams_and_pairs_by_view_samples(kind: str, on: str) -> None:
    repa, (batch, outputs) = Repa(config(loss=kind, on=on), WIDTH), batch_and_outputs()
    teacher = ImageEncoder(TEACHER)
    total, views = torch.zeros(()), 0
    for stream in ("input", "target"):
        if on not in (f"{stream}s", "both"):
            assert repa.taps(stream) == frozenset()
            continue
        assert repa.taps(stream) == {1, 3}
        for scene, pictures in enumerate(batch[f"{stream}_images"]):
            for view, picture in enumerate(pictures):
                views += 1
                for layer, model in ((2, 1), (5, 3)):
                    (labels,) = teacher.taps(picture[None], (6, 8), (layer,), labels=True)
                    tokens = outputs[f"repa.{stream}.{model}"][scene, view]
                    projected = repa.get_submodule(f"{stream}.{layer}.{model}")(tokens)
                    total += by_hand(kind, projected, labels[0])
    torch.testing.assert_close(repa.loss(batch, outputs), 0.5 * total / views, rtol=1e-4, atol=1e-6)


def test_a_masked_view_counts_for_nothing() -> None:
    repa, (batch, outputs) = Repa(config(), WIDTH), batch_and_outputs(scenes=1)
    without = {**batch, "input_images": batch["input_images"][:, :1]}
    fewer = {name: tokens[:, :1] if "input" in name else tokens for name, tokens in outputs.items()}
    expected = repa.loss(without, fewer)
    masked = {**batch, "input_mask": torch.tensor([[True, False]])}
    torch.testing.assert_close(repa.loss(masked, outputs), expected)
    assert not torch.allclose(repa.loss(batch, outputs), expected)
    masked["input_images"] = batch["input_images"].clone()
    masked["input_images"][:, 1] = torch.nan
    loss = repa.loss(masked, outputs)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    for value in (*repa.parameters(), *outputs.values()):
        assert value.grad.isfinite().all()


def test_keys_are_the_published_ones() -> None:
    model = nn.Module()
    model.repa_projector = Repa(config(pairs=[[4, 2], [5, 4]]), WIDTH)
    expected = {
        f"repa_projector.{stream}.{pair}.{linear}.{kind}"
        for stream in ("input", "target")
        for pair in ("4.2", "5.4")
        for linear in (0, 2, 4)
        for kind in ("weight", "bias")
    }
    assert set(model.state_dict()) == expected
    shapes = {key: tuple(weight.shape) for key, weight in model.state_dict().items()}
    assert shapes["repa_projector.input.4.2.0.weight"] == (HIDDEN, WIDTH)
    assert shapes["repa_projector.input.4.2.2.weight"] == (HIDDEN, HIDDEN)
    assert shapes["repa_projector.input.4.2.4.weight"] == (256, HIDDEN)


@pytest.mark.parametrize("projector", ["mlp", "attention"])
def test_gradients_reach_projector_and_tokens_and_not_the_teacher(projector: str) -> None:
    repa, (batch, outputs) = Repa(config(projector=projector), WIDTH), batch_and_outputs()
    before = copy.deepcopy(repa.teacher.network.state_dict())
    loss = repa.train().loss(batch, outputs, progress=0.9)
    loss.backward()
    assert loss.dtype == torch.float32
    for weight in [*repa.parameters(), *outputs.values()]:
        assert weight.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in repa.teacher.network.parameters())
    assert not repa.teacher.network.training
    torch.optim.SGD(repa.parameters(), lr=0.1).step()
    assert all(torch.equal(before[key], value) for key, value in repa.teacher.network.state_dict().items())
    again = Repa(config(projector=projector), WIDTH)
    again.load_state_dict(repa.state_dict())
    assert torch.equal(again.loss(batch, outputs), repa.loss(batch, outputs))


def test_descending_the_loss_aligns_the_tokens() -> None:
    torch.manual_seed(0)
    repa, (batch, outputs) = Repa(config(pairs=((2, 1),), loss="cos"), WIDTH), batch_and_outputs()
    optimiser = torch.optim.Adam([*repa.parameters(), *outputs.values()], lr=3e-3)
    losses = []
    for _ in range(15):
        losses.append(repa.loss(batch, outputs))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0] - 0.1


def test_it_stops_at_its_progress_without_running_the_teacher() -> None:
    repa, (batch, outputs) = Repa(config(until=0.5), WIDTH), batch_and_outputs()
    calls = []
    repa.teacher.network.register_forward_hook(lambda *_: calls.append(1))
    assert repa.loss(batch, outputs, progress=0.49) > 0
    assert len(calls) == 2, "once for each stream, all layers in one pass"
    stopped = repa.loss(batch, {}, progress=0.5)
    assert len(calls) == 2
    assert stopped.item() == 0
    stopped.backward()
    # DistributedDataParallel waits for every parameter: each still has a gradient, of zero.
    assert all(torch.equal(weight.grad, torch.zeros_like(weight)) for weight in repa.parameters())


@pytest.mark.parametrize("name", ["dinov2-b14", "alexnet"])
def test_its_cost_is_counted_on_meta_without_weights(name: str) -> None:
    with torch.device("meta"):
        repa = Repa(RepaConfig(ImageEncoderConfig(name), pairs=((3, 1),), hidden=HIDDEN), WIDTH)
        batch = {"input_images": torch.empty(1, 2, 3, 64, 64), "target_images": torch.empty(1, 3, 3, 64, 64)}
        outputs = {"repa.input.1": torch.empty(1, 2, 64, WIDTH), "repa.target.1": torch.empty(1, 3, 64, WIDTH)}
    with FlopCounterMode(display=False) as counter:
        repa.loss(batch, outputs)
    channels = repa.teacher.channels
    projector = 2 * 64 * (WIDTH * HIDDEN + HIDDEN * HIDDEN + HIDDEN * channels)
    assert counter.get_total_flops() == repa.teacher.flops(5, (8, 8)) + 5 * projector


def test_what_a_model_does_not_return_is_named() -> None:
    repa, (batch, outputs) = Repa(config(), WIDTH), batch_and_outputs()
    with pytest.raises(ValueError, match=r"returns no 'repa.input.1'"):
        repa.loss(batch, {})
    tokens = {name: value[:, :, :47] for name, value in outputs.items()}
    with pytest.raises(ValueError, match="47 tokens are no grid"):
        repa.loss(batch, tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": ()}, "pairs must be"),
        ({"pairs": "8-2"}, "pairs must be"),
        ({"pairs": ((6, 1),)}, "layer of alexnet must be 0"),
        ({"pairs": ((2, 1), (2, 1))}, "pairs must differ"),
        ({"on": "all"}, "on must be one of inputs, targets, both"),
        ({"loss": "l2"}, "loss must be one of cos, mse, smooth-l1"),
        ({"projector": "linear"}, "projector must be one of"),
        ({"projector": "attention", "hidden": 100}, "multiple of 64"),
        ({"weight": 0.0}, "weight must be > 0"),
        ({"weight": "half"}, "weight must be a number"),
        ({"teacher": "dinov2-b14"}, "teacher must be the options"),
        ({"until": 0.0}, r"until must be a progress in \(0, 1\]"),
        ({"teacher": {"name": "alexnet", "frozen": False}}, "teacher must be frozen"),
        ({"teacher": {"name": "alexnet", "layer": 2}}, "teacher must be frozen"),
        ({"teacher": {"name": "alexnet", "patch": 2}}, "unknown option 'patch'"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**options)
