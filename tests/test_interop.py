import argparse
import json
import pickle
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from baselines.lvsm import LVSMDecoderOnly
from baselines.lvsm_encoder_decoder import LVSMEncoderDecoder
from bench.errors import UserError
from bench.interop import check_parity, load_parity_fixture, load_reference_checkpoint
from models.efficient_lvsm import EfficientLVSM
from models.layers.sliding_window import SlidingWindowSegmenter

CLASSES = {
    "lvsm-decoder-only": LVSMDecoderOnly,
    "lvsm-encoder-decoder": LVSMEncoderDecoder,
    "efficient-lvsm": EfficientLVSM,
}


@pytest.fixture(params=sorted(CLASSES))
def fixture_path(request, repo_root):
    return repo_root / "tests" / "fixtures" / "parity" / f"{request.param}.safetensors"


def rewrite(source, target, change):
    """Copy a fixture; ``change(tensors, metadata)`` edits both in place."""
    with safe_open(source, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    change(tensors, metadata)
    save_file(tensors, target, metadata)
    return target


def test_inference_alone_has_no_loss(tmp_path):
    torch.manual_seed(0)
    tensors = {
        "in/image": torch.rand(3, 20, 30) * 255,
        "in/pixel_mean": torch.full((3,), 120.0),
        "in/pixel_std": torch.full((3,), 60.0),
        "in/weight": torch.randn(2, 3, 1, 1),
        "in/bias": torch.randn(2),
    }
    config = {"height": 10, "width": 15, "kernel": 12, "stride": 8, "out_res": 12}
    model = SlidingWindowSegmenter.from_reference({}, **config)
    inputs = {name.removeprefix("in/"): value for name, value in tensors.items()}
    tensors["out/probabilities"] = model(**inputs)["probabilities"].contiguous()
    metadata = {"architecture": "catseg-sliding-window", "config": json.dumps(config)}
    path = tmp_path / "window.safetensors"
    save_file(tensors, path, metadata)
    report = check_parity(path)
    assert report.passed
    assert [deviation.kind for deviation in report.deviations] == ["output"]
    save_file({**tensors, "out/probabilities": tensors["out/probabilities"] + 1e-3}, path, metadata)
    assert not check_parity(path).passed
    without = {name: value for name, value in tensors.items() if name.startswith("in/")}
    for held, told in ((tensors, {**metadata, "loss": "mean-square"}), (without, metadata)):
        save_file(held, path, told)
        with pytest.raises(UserError, match="the fixture is incomplete"):
            check_parity(path)


# --- the published implementations ---------------------------------------------------------------------------------


def test_own_fixtures_pass(fixture_path):
    report = check_parity(fixture_path, CLASSES.__getitem__)
    assert report.passed, report.lines()
    kinds = [deviation.kind for deviation in report.deviations]
    assert kinds.count("output") == kinds.count("loss") == 1
    assert kinds.count("gradient") == len(load_parity_fixture(fixture_path).state)
    assert [deviation.kind for deviation in report.worst()] == ["output", "loss", "gradient"]
    assert report.lines()[0].endswith("pass")


def test_the_aggregator_of_cat_seg_passes(repo_root):
    report = check_parity(repo_root / "tests" / "fixtures" / "parity" / "catseg-aggregator.safetensors")
    assert report.passed, report.lines()


def test_names_come_from_the_registry_by_default(fixture_path):
    assert check_parity(fixture_path).passed


@pytest.mark.shared
def test_every_shared_fixture_passes_or_is_refused_for_what_does_not_exist(shared_dir):
    passed = []
    for path in sorted((shared_dir / "parity").rglob("*lvsm*.safetensors")):
        fixture = load_parity_fixture(path)
        cls = CLASSES.get(fixture.architecture)
        if cls is None or set(fixture.config) - set(cls.config_class.__dataclass_fields__):
            with pytest.raises(UserError, match="unknown"):
                check_parity(path, CLASSES.__getitem__)
        else:
            report = check_parity(path, CLASSES.__getitem__)
            assert report.passed, report.lines()
            passed.append(path.name)
    assert len(passed) >= 4


# --- a miss is a miss ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "change", "kind"),
    [
        ("out/images", lambda x: x + 1.5e-5, "output"),
        ("out/images", lambda x: x[..., :8], "output"),
        ("out/images", lambda x: x * float("nan"), "output"),
        ("out/loss", lambda x: x * (1 + 5e-6), "loss"),
        ("grad_norm/target_pose_tokenizer.1.weight", lambda x: x * 1.0002, "gradient"),
    ],
)
def test_a_deviation_is_found(fixture_path, tmp_path, key, change, kind):
    def spoil(tensors, metadata):
        tensors[key] = change(tensors[key]).contiguous()

    report = check_parity(rewrite(fixture_path, tmp_path / "x.safetensors", spoil), CLASSES.__getitem__)
    assert not report.passed
    assert [deviation.kind for deviation in report.deviations if not deviation.passed] == [kind]
    assert "MISS" in report.lines()[0]
    assert sum("<- miss" in line for line in report.lines()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: m.update(architecture="mae"), "'mae' is unknown"),
        (
            lambda t, m: m.update(config=json.dumps({**json.loads(m["config"]), "depth": 2})),
            "unknown option 'depth'",
        ),
        (lambda t, m: m.update(config="{"), "'config' must be JSON"),
        (lambda t, m: m.update(config="[]"), "'config' must be a JSON object"),
        (lambda t, m: m.update(loss="huber"), "loss must be mse, mean-square or model, got 'huber'"),
        (lambda t, m: m.update(loss="model"), "reference_loss"),
        (lambda t, m: m.pop("loss"), "metadata field 'loss' is missing"),
        (lambda t, m: t.pop("state/target_pose_tokenizer.1.weight"), "missing key 'target_pose_tokenizer.1.weight'"),
        (lambda t, m: t.pop("out/loss"), "'out/loss' is missing"),
        (lambda t, m: t.pop("in/target_images"), "'in/target_images'"),
        (lambda t, m: t.pop("in/target_c2w"), "'in/target_c2w' is missing"),
        (lambda t, m: t.update({"in/input_c2w": t["in/input_c2w"][:, :1].clone()}), "input_intrinsics must be"),
        (lambda t, m: t.update(stray=torch.zeros(1)), "'stray'"),
        (lambda t, m: t.update({"grad_norm/head": torch.zeros(())}), "grad_norm/head"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_line(fixture_path, tmp_path, change, message):
    path = rewrite(fixture_path, tmp_path / "x.safetensors", change)
    with pytest.raises(UserError, match=message) as raised:
        check_parity(path, CLASSES.__getitem__)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("keep", [0, 5, 200, 0.5, -1])
def test_a_truncated_fixture_is_refused(fixture_path, tmp_path, keep):
    content = fixture_path.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match="damaged, cut off or not safetensors"):
        check_parity(path, CLASSES.__getitem__)


def test_a_missing_fixture_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        check_parity(tmp_path / "none.safetensors", CLASSES.__getitem__)


# --- the other kinds of loss ---------------------------------------------------------------------------------------


class Scale(nn.Module):
    """Two outputs and a loss of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return {"a": self.weight * x, "b": self.weight * 2 * x}

    def reference_loss(self, batch, outputs):
        return (outputs["a"] - batch["goal"]).abs().mean()

    @classmethod
    def from_reference(cls, state):
        model = cls()
        model.load_state_dict(state)
        return model


@pytest.mark.parametrize(("loss", "value", "gradient"), [("mean-square", 180.0, 120.0), ("model", 5.0, 2.0)])
def test_losses(tmp_path, loss, value, gradient):
    x = torch.tensor([2.0])
    tensors = {
        "state/weight": torch.tensor(3.0),
        "in/x": x,
        "in/goal": torch.tensor([1.0]),
        "out/a": 3 * x,
        "out/b": 6 * x,
        "out/loss": torch.tensor(value),
        "grad_norm/weight": torch.tensor(gradient),
    }
    path = tmp_path / "scale.safetensors"
    save_file(tensors, path, {"architecture": "scale", "config": "{}", "loss": loss})
    report = check_parity(path, {"scale": Scale}.__getitem__)
    assert report.passed, report.lines()


class Unseen(Scale):
    """With a weight that the outputs do not depend on but for rounding."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return super().forward(x + 0 * self.bias)


@pytest.mark.parametrize(("norm", "passes"), [(3e-10, True), (1e-5, True), (1e-3, False)])
def test_a_gradient_that_is_zero_by_theory_need_only_be_as_small(tmp_path, norm, passes):
    x = torch.tensor([2.0])
    tensors = {
        "state/weight": torch.tensor(3.0),
        "state/bias": torch.tensor(0.0),
        "in/x": x,
        "out/a": 3 * x,
        "out/b": 6 * x,
        "out/loss": torch.tensor(180.0),
        "grad_norm/weight": torch.tensor(120.0),
        "grad_norm/bias": torch.tensor(norm),
    }
    path = tmp_path / "unseen.safetensors"
    save_file(tensors, path, {"architecture": "unseen", "config": "{}", "loss": "mean-square"})
    assert check_parity(path, {"unseen": Unseen}.__getitem__).passed == passes


# --- metrics -------------------------------------------------------------------------------------------------------


MIOU = {
    "metric": "miou",
    "config": json.dumps({"classes": 5, "ignore_index": 4000}),
    # class 0: 3 of its 4 pixels and 1 too many; class 1: none of its 1; class 2: 1 too many; 3 and 4 are nowhere
    "expected": json.dumps(
        {"miou_gt": 30.0, "miou_union": 20.0, "fwiou": 48.0, "mean_accuracy": 37.5, "pixel_accuracy": 60.0}
    ),
}


def metric_fixture(path, change=lambda tensors, metadata: None):
    tensors = {
        "in/labels": torch.tensor([[0, 0, 0], [0, 1, 4000]], dtype=torch.uint16),
        "in/predictions": torch.tensor([[0, 0, 0], [2, 0, 1]], dtype=torch.uint16),
    }
    metadata = dict(MIOU)
    change(tensors, metadata)
    save_file(tensors, path, metadata)
    return path


def test_a_metric_is_compared_figure_by_figure(tmp_path):
    report = check_parity(metric_fixture(tmp_path / "m.safetensors"))
    assert report.passed, report.lines()
    assert [deviation.name for deviation in report.deviations] == list(json.loads(MIOU["expected"]))
    assert report.lines()[0].endswith("metric miou: pass")


@pytest.mark.parametrize("figure", ["miou_gt", "miou_union", "fwiou", "mean_accuracy", "pixel_accuracy"])
def test_a_metric_that_is_off_is_a_miss(tmp_path, figure):
    def spoil(tensors, metadata):
        expected = json.loads(metadata["expected"])
        metadata["expected"] = json.dumps({**expected, figure: expected[figure] + 2e-6})

    report = check_parity(metric_fixture(tmp_path / "m.safetensors", spoil))
    assert [deviation.name for deviation in report.deviations if not deviation.passed] == [figure]
    assert "MISS (1 of 5 quantities)" in report.lines()[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: m.update(metric="psnr"), "metric 'psnr' is unknown here: only miou"),
        (lambda t, m: m.pop("expected"), "'expected' is missing"),
        (lambda t, m: m.update(expected="{}"), "'expected' must hold figures"),
        (lambda t, m: m.update(expected='{"dice": 1.0}'), "figure 'dice' is unknown here"),
        (lambda t, m: m.update(config='{"classes": 5}'), "'config' must hold the numbers classes and ignore_index"),
        (
            lambda t, m: m.update(config='{"classes": 5, "ignore_index": 255}'),
            "a label is 4000, but classes are 0 to 4",
        ),
        (lambda t, m: t.pop("in/predictions"), "'in/predictions' is missing"),
    ],
)
def test_a_metric_that_cannot_be_compared_is_one_clear_line(tmp_path, change, message):
    path = metric_fixture(tmp_path / "m.safetensors", change)
    with pytest.raises(UserError, match=message) as raised:
        check_parity(path)
    assert str(path) in str(raised.value)


@pytest.mark.shared
def test_the_metric_is_that_of_the_published_evaluator(shared_dir):
    report = check_parity(shared_dir / "parity" / "metric-miou.safetensors")
    assert report.passed, report.lines()
    assert len(report.deviations) == 5


# --- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt"])
def test_a_published_file_loads(fixture_path, tmp_path, suffix):
    fixture = load_parity_fixture(fixture_path)
    optimizer = {"state": {}, "param_groups": [{"lr": 4e-4, "betas": (0.9, 0.95)}]}
    path = tmp_path / f"ckpt{suffix}"
    model = {f"_orig_mod.{key}": value for key, value in fixture.state.items()}
    torch.save({"model": model, "optimizer": optimizer, "param_update_step": 3}, path)
    loaded = CLASSES[fixture.architecture].from_reference(load_reference_checkpoint(path), **fixture.config)
    assert all(torch.equal(value, fixture.state[key]) for key, value in loaded.state_dict().items())


def test_safetensors_load(fixture_path, tmp_path):
    fixture = load_parity_fixture(fixture_path)
    save_file(fixture.state, tmp_path / "ckpt.safetensors")
    loaded = load_reference_checkpoint(tmp_path / "ckpt.safetensors")
    CLASSES[fixture.architecture].from_reference(loaded, **fixture.config)


class Harmful:
    def __reduce__(self):
        return print, ("this must not run",)


def test_the_command_line_in_a_trainers_checkpoint_is_no_obstacle(tmp_path):
    arguments = argparse.Namespace(lr=1e-3, model="mae_vit_base_patch16")
    torch.save({"model": {"weight": torch.ones(2)}, "args": arguments, "epoch": 3}, tmp_path / "trainer.pth")
    loaded = load_reference_checkpoint(tmp_path / "trainer.pth")
    assert loaded["args"] == arguments
    assert torch.equal(loaded["model"]["weight"], torch.ones(2))


@pytest.mark.parametrize("content", [{"model": Harmful()}, {"args": argparse.Namespace(hidden=Harmful())}])
def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys, content):
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(UserError, match="not a file of tensors alone") as raised:
        load_reference_checkpoint(tmp_path / "bad.pt")
    assert str(raised.value) == (
        f"{tmp_path / 'bad.pt'}: not a file of tensors alone (it needs print): save the state dict by itself, best as "
        f".safetensors"
    )
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "content",
    [
        b"not a pickle",
        pickle.dumps({"model": [1.0]}, protocol=4),
        b"\x80\x02.",
        b"\x80\x02K",
        b"\x80\x02c\x1b[1mos\x07\nsystem\n.",
    ],
)
def test_a_refusal_is_no_advice_of_how_to_run_code(tmp_path, content):
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(UserError) as raised:
        load_reference_checkpoint(tmp_path / "bad.pth")
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'bad.pth'}: ")
    assert message.isprintable()
    assert "()" not in message
    assert not any(word in message for word in ("weights_only", "can still be loaded", "pytorch.org", "PyTorch 2.6"))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damaged_and_missing_checkpoints_are_refused(fixture_path, tmp_path, suffix):
    path = tmp_path / f"ckpt{suffix}"
    with pytest.raises(UserError, match="no such file"):
        load_reference_checkpoint(path)
    if suffix == ".pt":
        torch.save(load_parity_fixture(fixture_path).state, path)
    else:
        shutil.copyfile(fixture_path, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="ckpt") as raised:
        load_reference_checkpoint(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "message"), [("x.bin", "must end in"), ("list.pt", "must hold a dict")])
def test_other_files_are_refused(tmp_path, name, message):
    torch.save([torch.zeros(1)], tmp_path / name)
    with pytest.raises(UserError, match=message):
        load_reference_checkpoint(tmp_path / name)
