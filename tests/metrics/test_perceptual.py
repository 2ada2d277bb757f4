"""The perceptual metric: trained weights only, the right input range, silence, and a clear line where LPIPS is missing."""

from pathlib import Path

import pytest
import torch

from bench.errors import UserError
from bench.metrics import perceptual


@pytest.fixture
def no_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch hub folder without any weights, and no network to fetch them from."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    perceptual._network.cache_clear()
    return tmp_path


def noisy(amount: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(2, 3, 8, 8, generator=generator)
    target = torch.nn.functional.interpolate(coarse, size=64, mode="bilinear")
    return target + amount * torch.randn(target.shape, generator=generator), target


def test_st_lpips_orders_images_and_is_zero_for_equal_ones(capfd: pytest.CaptureFixture[str]) -> None:
    distance = perceptual.PerceptualDistance("st-lpips")
    _, target = noisy(0)
    far, near, same = (distance(noisy(amount)[0], target) for amount in (0.3, 0.03, 0.0))
    assert same.tolist() == [0, 0]
    assert (far > near).all()
    assert (near > 0).all()
    assert capfd.readouterr() == ("", "")


def test_st_lpips_takes_the_range_from_0_to_1() -> None:
    from stlpips_pytorch import stlpips

    network = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    prediction, target = (image.clamp(0, 1) for image in noisy(0.1))
    with torch.inference_mode():
        expected = network(prediction * 2 - 1, target * 2 - 1).flatten()
        torch.testing.assert_close(perceptual.PerceptualDistance("st-lpips")(prediction, target), expected)


def test_the_random_state_is_left_alone_and_gradients_flow() -> None:
    perceptual._network.cache_clear()
    prediction, target = noisy(0.1)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with torch.inference_mode():  # the network is first built in an evaluation, and must serve as a loss all the same
        perceptual.PerceptualDistance("st-lpips")(prediction, target)
    assert torch.equal(torch.rand(3), expected)
    prediction = prediction.clamp(0.01, 0.99).requires_grad_()
    perceptual.PerceptualDistance("st-lpips")(prediction, target).sum().backward()
    assert prediction.grad is not None
    assert prediction.grad.abs().sum() > 0


def test_auto_says_that_it_is_not_lpips(no_backbone: Path) -> None:
    kind, notice = perceptual.resolve("auto")
    assert kind == "st-lpips"
    assert "ST-LPIPS" in notice
    assert "lpips-vgg" in notice
    assert "\n" not in notice
    metric = perceptual.metric(kind)
    assert metric.name == "st_lpips"
    assert "not LPIPS" in metric.note
    assert not metric.higher_is_better


def test_auto_takes_lpips_where_its_backbone_is_at_hand(no_backbone: Path) -> None:
    path = perceptual._backbone_file("vgg16")
    path.parent.mkdir()
    path.touch()
    assert perceptual.resolve("auto") == ("lpips-vgg", "")


@pytest.mark.parametrize("kind", ["lpips-vgg", "lpips-alex"])
def test_lpips_without_weights_is_a_user_error_never_random_weights(no_backbone: Path, kind: str) -> None:
    assert perceptual.resolve(kind) == (kind, "")
    with pytest.raises(
        UserError, match=r"could not be fetched .* download https://.* or set task.perceptual: st-lpips"
    ):
        perceptual.PerceptualDistance(kind).prepare()


def test_a_damaged_backbone_is_refused(no_backbone: Path) -> None:
    path = perceptual._backbone_file("alexnet")
    path.parent.mkdir()
    path.write_bytes(b"half a download")
    with pytest.raises(UserError, match=r"is damaged .* delete it"):
        perceptual.PerceptualDistance("lpips-alex")(*noisy(0.1))


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision.*")
def test_lpips_is_built_from_a_backbone_file(no_backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in backbone of the right layout, our loader equals the package given the same weights."""
    import hashlib

    import lpips
    import torchvision

    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = torchvision.models.alexnet(weights=None)
        path = no_backbone / "alexnet.pth"
        torch.save(backbone.state_dict(), path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        path = path.rename(no_backbone / f"alexnet-{digest}.pth")
        monkeypatch.setattr(perceptual, "_backbone_file", lambda name: path)
        oracle = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    for name, weight in oracle.net.named_parameters():
        weight.data.copy_(backbone.state_dict()["features." + name.split(".", 1)[1]])
    prediction, target = (image.clamp(0, 1) for image in noisy(0.1))
    with torch.inference_mode():
        expected = oracle(prediction, target, normalize=True).flatten()
        torch.testing.assert_close(perceptual.PerceptualDistance("lpips-alex")(prediction, target), expected)
    perceptual._network.cache_clear()


def test_small_images_and_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="needs images of 32 px or more, got 16"):
        perceptual.resolve("st-lpips", 16)
    assert perceptual.resolve("auto", 16)[0] == "none"
    with pytest.raises(UserError, match=r"task\.perceptual must be one of"):
        perceptual.resolve("lpips")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, no_backbone: Path) -> None:
    monkeypatch.setattr(perceptual, "_installed", lambda kind: False)
    with pytest.raises(UserError, match="pip install stlpips-pytorch"):
        perceptual.resolve("st-lpips")
    kind, notice = perceptual.resolve("auto")
    assert kind == "none"
    assert notice
