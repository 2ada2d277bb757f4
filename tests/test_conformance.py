"""Every planted fault is found by the check that is meant for it, and a healthy architecture passes all of them."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import registry
from bench.conformance import Finding, check
from bench.contracts import Batch, Causality
from bench.experiment.check import check_architecture
from bench.tasks.nvs import NovelViewSynthesis, NVSConfig
from bench.tasks.openvocab import OpenVocabulary
from bench.tasks.openvocab_config import PRESETS as OPEN_PRESETS
from tests import planted


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> NovelViewSynthesis:
    config = NVSConfig(image_size=32, perceptual="none")
    return NovelViewSynthesis(config, tmp_path_factory.mktemp("unused"))


def failures(findings: list[Finding]) -> dict[str, str]:
    assert all("\n" not in finding.detail and finding.detail for finding in findings), "one line each"
    return {finding.name: finding.detail for finding in findings if not finding.passed}


@pytest.mark.parametrize("build", [planted.TinyNVS, planted.Twin, planted.Sleeper], ids=lambda build: build.__name__)
def test_a_healthy_architecture_passes_everything(task: NovelViewSynthesis, build: type[nn.Module]) -> None:
    findings = check(build, task)
    assert not failures(findings)
    assert [finding.name for finding in findings] == [
        "signature", "forward and loss", "inputs unchanged", "gradients", "bf16", "always finite", "targets unseen",
        "symmetries", "samples apart", "later frames unseen", "deterministic", "seeds", "A/A tie", "state dict", "affine memory", "FLOPs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("build", "name", "line"),
    [
        (planted.Leaker, "targets unseen", "with the targets of an earlier training step"),
        (planted.NoEpsilon, "always finite", "is not finite on black images"),
        (planted.NanAfter, "always finite", "output 'images' is not finite on random batch 5"),
        (planted.Narrow, "bf16", "is not finite under bf16 autocast"),
        (planted.Hoarder, "affine memory", "memory is not affine in the batch"),
        (planted.Liar, "FLOPs", "mend the model's flops"),
        (planted.Silent, "FLOPs", r"flops\(\) is missing: write flops\(self, batch\) -> int"),
        (planted.Idler, "gradients", "no gradient reaches idle.bias, idle.weight: use the weight, or name it"),
        (planted.Boaster, "gradients", "names paint.bias, which does get a gradient"),
        (planted.Mixer, "samples apart", "change by .* with the rest of its batch"),
        (planted.OrderSeer, "symmetries", "order of the input views must not matter"),
        (planted.Scribbler, "inputs unchanged", "forward changes input_images in place"),
        (planted.Forgetful, "state dict", "after saving and loading"),
        (planted.Stubborn, "seeds", "models of two seeds are equal"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_is_found_and_nothing_else(
    task: NovelViewSynthesis, build: type[nn.Module], name: str, line: str
) -> None:
    found = failures(check(build, task))
    assert list(found) == [name]
    assert re.search(line, found[name]), found[name]


@pytest.mark.parametrize(
    ("build", "line"),
    [
        (planted.OpenLeaker, "forward asks for the target field 'target_images'"),
        (planted.HiddenLeaker, "forward asks for the target field 'target_images'"),
        (planted.WrongShape, "images must be [B, Vt, 3, H, W] = [2, 2, 3, 32, 32], got [2, 1, 3, 32, 32]"),
        (planted.Raiser, "RuntimeError: planted: this architecture always fails"),
        (partial(planted.TinyNVS, colour="red"), "TypeError"),
    ],
    ids=["open leaker", "hidden leaker", "wrong shape", "raiser", "unknown option"],
)
def test_what_cannot_run_is_one_line_and_not_a_crash(
    task: NovelViewSynthesis, build: type[nn.Module], line: str
) -> None:
    found = failures(check(build, task))
    assert any(line in detail for detail in found.values()), found
    assert found["all other checks"] == "not run, because 'forward and loss' failed"


@pytest.mark.slow
def test_classes_may_stand_in_any_order(tmp_path: Path) -> None:
    from models.catseg_aggregator import PRESETS as HEADS
    from models.catseg_aggregator import CATSegAggregator

    class Counter(CATSegAggregator):
        """Prefers the first classes of a list."""

        def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = super().forward(**inputs)["logits"]
            return {"logits": logits - 0.01 * torch.arange(logits.shape[1])[:, None, None]}

    task = OpenVocabulary(replace(OPEN_PRESETS["tiny"], data="aligned", grid=4, classes_per_list=4), tmp_path)
    head = replace(HEADS["tiny"], layers=1, resolution=(4, 4), window_size=4)
    found = failures(check(lambda: Counter(head), task))
    assert list(found) == ["symmetries"]
    assert "order of the classes must not matter" in found["symmetries"]


def test_a_loss_that_is_finite_only_sometimes_fails(task: NovelViewSynthesis) -> None:
    for period in (3, 5, 7):
        found = failures(check(partial(planted.SometimesNaN, period=period), task))
        assert "is not finite on" in found["always finite"]


def test_randomness_in_eval_mode_fails(task: NovelViewSynthesis) -> None:
    assert "two forwards in eval mode differ" in failures(check(planted.Gambler, task))["deterministic"]


@pytest.fixture
def clips(tmp_path: Path) -> NovelViewSynthesis:
    """A task whose targets are taken for the frames of a clip, of which there are three."""
    return NovelViewSynthesis(NVSConfig(image_size=32, perceptual="none", target_views=3), tmp_path)


def other_poses(batch: Batch, other: Batch, frame: int) -> Batch:
    return {**batch, "target_c2w": torch.cat([batch["target_c2w"][:, :frame], other["target_c2w"][:, frame:]], dim=1)}


def test_where_frames_have_an_order_later_ones_may_not_matter(
    clips: NovelViewSynthesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "causal", (Causality("images", other_poses),), raising=False)
    assert not failures(check(planted.TinyNVS, clips)), "a target of it reads its own pose alone"
    for build, frame in ((planted.Foreseer, 1), (planted.Peeker, 2)):
        found = failures(check(build, clips))
        assert list(found) == ["later frames unseen"]
        line = f"images before frame {frame} change by .* with what comes from there on"
        assert re.search(line, found["later frames unseen"])


def test_a_clip_may_have_more_that_belongs_to_later_frames(
    clips: NovelViewSynthesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(batch: Batch, other: Batch, frame: int) -> Batch:
        return {**batch, "input_images": other["input_images"]} if frame == 2 else batch

    monkeypatch.setattr(clips, "causal", (Causality("images", change),), raising=False)
    found = failures(check(planted.TinyNVS, clips))
    assert "images before frame 2" in found["later frames unseen"]


def test_declared_unused_weights_are_accepted_and_unknown_ones_are_not(task: NovelViewSynthesis) -> None:
    assert not failures(check(partial(planted.Idler, declared=True), task))

    class Confused(planted.TinyNVS):
        def unused_parameters(self) -> tuple[str, ...]:
            return ("nowhere",)

    assert "names nowhere, which the model does not have" in failures(check(Confused, task))["gradients"]


def test_a_zero_initialised_branch_is_not_called_unreachable(task: NovelViewSynthesis) -> None:
    class ZeroInit(planted.TinyNVS):
        def __init__(self) -> None:
            super().__init__()
            nn.init.zeros_(self.paint.weight)

    assert not failures(check(ZeroInit, task))


def test_an_honest_auxiliary_loss_passes(task: NovelViewSynthesis) -> None:
    class Honest(planted.TinyNVS):
        def auxiliary_loss(self, batch: dict, outputs: dict) -> torch.Tensor:
            return 0.1 * (outputs["images"] - batch["target_images"]).abs().mean()

    assert not failures(check(Honest, task))


@pytest.mark.parametrize("what", ["outputs", "targets"])
def test_an_auxiliary_loss_that_makes_the_task_loss_easy_fails(task: NovelViewSynthesis, what: str) -> None:
    class Forger(planted.TinyNVS):
        def auxiliary_loss(self, batch: dict, outputs: dict) -> torch.Tensor:
            extra = outputs["images"].mean() * 0
            if what == "outputs":
                outputs["images"].data.copy_(batch["target_images"])
            else:
                batch["target_images"].copy_(outputs["images"].detach())
            return extra

    assert "auxiliary_loss changes" in failures(check(Forger, task))["targets unseen"]


def test_a_weight_shared_under_two_names_is_named(task: NovelViewSynthesis) -> None:
    class Shared(planted.TinyNVS):
        def __init__(self) -> None:
            super().__init__()
            self.again = self.paint

    assert "register a shared weight once" in failures(check(Shared, task))["state dict"]


def test_an_input_that_forward_does_not_take_is_named(task: NovelViewSynthesis) -> None:
    class Partial(nn.Module):
        def forward(self, input_images, target_c2w, masks):
            return {}

    found = failures(check(Partial, task))
    assert found["signature"].startswith("forward needs 'masks', which task nvs does not give")


def test_a_given_memory_meter_is_asked(task: NovelViewSynthesis) -> None:
    asked: list[int] = []

    def meter(batch: int) -> int:
        asked.append(batch)
        return 1000 + 10 * batch**2

    found = failures(check(planted.TinyNVS, task, memory=meter))
    assert asked == [2, 4, 8]
    assert list(found) == ["affine memory"]


def test_a_task_with_the_bare_contract_is_enough(task: NovelViewSynthesis) -> None:
    class Bare:
        name, input_fields, target_fields, symmetries = task.name, task.input_fields, task.target_fields, ()
        worst_case, transfer, loss = task.worst_case, task.transfer, task.loss

    assert not failures(check(planted.TinyNVS, Bare()))


def test_the_random_state_is_left_as_it_was(task: NovelViewSynthesis) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    check(planted.TinyNVS, task)
    assert torch.equal(torch.rand(4), expected)


LITTLE = {
    "nvs": ["task.image_size=32", "task.perceptual=none"],
    "lvsm-decoder-only": ["width=64", "head_dim=32", "layers=2"],
    "lvsm-encoder-decoder": ["width=64", "head_dim=32", "encoder_layers=1", "decoder_layers=1", "latents=16"],
    "efficient-lvsm": ["width=64", "head_dim=32", "layers=2"],
    "masked-image": ["task.image_size=32"],
    "mae": ["layers=2", "decoder_layers=2"],
    "crossmae": ["layers=2", "decoder_layers=2"],
    "hydrology-mae": ["width=32"],
    "vos": ["task.image_size=32", "task.clip_frames=3", "task.objects=2"],
    "vos-memory": ["layers=[1, 1, 1]", "widths=[16, 24, 32]", "decoder_width=16"],
    "mixformer-cvt": ["layers=[1, 1, 1]"],
    "mixformer-vit": ["layers=2"],
    "openvocab": ["task.classes_per_list=4"],
    "catseg": ["task.crop_size=32", "image_layers=1", "text_layers=1", "layers=1"],
    "catseg-aggregator": ["task.data=aligned", "task.grid=4", "window_size=4", "layers=1"],
}
"""Options of tasks and architectures that make a check quick; the others are small enough under ``tiny``."""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(registry.ARCHITECTURES))
def test_the_registered_architectures_pass(name: str, tmp_path: Path) -> None:
    task = registry.architecture(name).task
    changes = [*LITTLE.get(name, ()), *LITTLE.get(task, ())]
    assert not failures(check_architecture(name, task, "tiny", changes, tmp_path, "cpu"))


@pytest.mark.gpu
def test_a_healthy_architecture_passes_on_cuda(task: NovelViewSynthesis) -> None:
    assert not failures(check(planted.TinyNVS, task, "cuda"))
    assert "targets unseen" in failures(check(planted.Leaker, task, "cuda"))


def test_planted_architectures_are_factories_by_name(tmp_path: Path) -> None:
    """As in ``factory: tests.planted:Sleeper`` with options."""
    model = planted.Sleeper(seconds=0.0, width=8)
    assert model.read.out_features == 8
