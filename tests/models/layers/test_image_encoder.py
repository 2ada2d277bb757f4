"""Trained networks as feature sources: their weights or none, hidden when frozen, on the token grid, counted to the FLOP."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.engine.flops import triangulate
from models.layers import trained_networks
from models.layers.image_encoder import FeatureFusion, ImageEncoder, ImageEncoderConfig

VITS = ("dinov2-b14", "dinov2-l14", "dinov3-b16", "pe-core-l14")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(repository: str) -> str:
        raise OSError(f"no network for {repository}")

    monkeypatch.setattr(trained_networks, "_fetch", refuse)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """timm's DINOv2-B/14 with random weights, and a file of them in the original layout (it has a mask token)."""
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("vit_base_patch14_dinov2.lvd142m", pretrained=False, dynamic_img_size=True)
    path = tmp_path_factory.mktemp("weights") / "dinov2.pth"
    torch.save({**network.state_dict(), "mask_token": torch.zeros(1, 768)}, path)
    return network.eval(), path


def images(count: int = 2, size: int = 64) -> torch.Tensor:
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(coarse, size=size, mode="bilinear")


def on_meta(**options: object) -> ImageEncoder:
    with torch.device("meta"):
        return ImageEncoder(ImageEncoderConfig(**options))


@pytest.mark.parametrize("name", VITS)
def test_missing_weights_are_one_line_that_says_what_to_fetch(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"could not be fetched .* from https://huggingface.co/timm/vit_.*set weights to"
    ) as e:
        ImageEncoder(ImageEncoderConfig(name))
    assert name in str(e.value)
    assert "\n" not in str(e.value)


def test_files_that_do_not_serve_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weights must be a file"):
        ImageEncoder(ImageEncoderConfig("alexnet", weights=str(tmp_path / "nowhere.pth")))
    (tmp_path / "damaged.pth").write_bytes(b"half a download")
    with pytest.raises(ValueError, match=r"damaged.pth cannot be read"):
        ImageEncoder(ImageEncoderConfig("alexnet", weights=str(tmp_path / "damaged.pth")))
    state = ImageEncoder(ImageEncoderConfig("alexnet")).network.state_dict()
    torch.save(dict(list(state.items())[1:]), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth: state does not fit AlexNet: missing key"):
        ImageEncoder(ImageEncoderConfig("alexnet", weights=str(tmp_path / "other.pth")))


@pytest.mark.slow
def test_dinov2_reads_a_local_file_and_aligns_its_patches(dinov2: tuple[nn.Module, Path]) -> None:
    network, path = dinov2
    before = torch.get_rng_state()
    encoder = ImageEncoder(ImageEncoderConfig("dinov2-b14", weights=str(path), layer=2))
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        # 8 x 8 tokens: 112 px
        pixels = nn.functional.interpolate(images(), size=112, mode="bicubic")
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        tokens = network._pos_embed(network.patch_embed((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)))
        first = network.blocks[0](tokens)
        second = network.blocks[1](first)
    torch.testing.assert_close(encoder(images(), (8, 8)), second[:, 1:], atol=1e-4, rtol=1e-4)
    by_layer = encoder.taps(images(), (8, 8), (2, 1))
    torch.testing.assert_close(by_layer[1], first[:, 1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(by_layer[0], second[:, 1:], atol=1e-4, rtol=1e-4)
    assert encoder.identity()["source"] == "dinov2.pth"
    assert encoder.identity()["sha256"] == trained_networks.digest(path)


@pytest.mark.parametrize("name", VITS)
def test_the_last_layer_has_the_final_norm_and_a_named_one_has_not(name: str) -> None:
    assert isinstance(on_meta(name=name, layer=4).network.timm.norm, nn.Identity)
    last = on_meta(name=name)
    assert isinstance(last.network.timm.norm, nn.LayerNorm)
    assert last(torch.empty(3, 3, 64, 64, device="meta"), (8, 8)).shape == (3, 64, last.channels)
    with pytest.raises(ValueError, match="layer of"):
        ImageEncoderConfig(name, layer=25)


def alexnet_by_hand(pixels: torch.Tensor) -> list[torch.Tensor]:
    """The package's own trunk and scaling."""
    from stlpips_pytorch import stlpips

    network = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    with torch.no_grad():
        return list(network.net(network.scaling_layer(2 * pixels - 1)))


@pytest.mark.filterwarnings("ignore")
def test_alexnet_is_the_trained_trunk_of_st_lpips() -> None:
    pixels = nn.functional.interpolate(images(), size=224, mode="bicubic")
    maps = alexnet_by_hand(pixels)
    encoder = ImageEncoder(ImageEncoderConfig("alexnet"))
    found = encoder.taps(images(), (8, 8), (1, 2, 3, 4, 5))
    for ours, theirs in zip(found, maps, strict=True):
        expected = nn.functional.interpolate(theirs, size=(8, 8), mode="bilinear", antialias=True)
        torch.testing.assert_close(ours, expected.flatten(2).mT, atol=1e-5, rtol=1e-5)
    assert torch.equal(encoder(images(), (8, 8)), found[-1])
    assert [tensor.shape[-1] for tensor in found] == encoder.layer_channels((1, 2, 3, 4, 5))
    assert encoder.channels == 256
    assert ImageEncoder(ImageEncoderConfig("alexnet", layer=2)).channels == 192
    assert encoder.identity()["source"].startswith("stlpips-pytorch")


def test_alexnet_reads_images_as_they_come_and_enlarges_its_map() -> None:
    encoder = ImageEncoder(ImageEncoderConfig("alexnet", layer=3, input_size=0))
    raw = alexnet_by_hand(images())[2]
    assert raw.shape[-1] < 16
    expected = nn.functional.interpolate(raw, size=(16, 16), mode="bilinear")
    torch.testing.assert_close(encoder(images(), (16, 16)), expected.flatten(2).mT, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="from 32 px, got 16 x 16"):
        encoder(images(size=16), (8, 8))
    with pytest.raises(ValueError, match="give size"):
        encoder.flops(1, (8, 8))


def test_labels_are_of_plainly_resized_images_as_published_and_features_of_antialiased_ones() -> None:
    pixels, small = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(3)), {}
    for antialias in (False, True):
        small[antialias] = nn.functional.interpolate(pixels, size=64, mode="bicubic", antialias=antialias)
    encoder = ImageEncoder(ImageEncoderConfig("alexnet", layer=1, input_size=64))
    (labels,) = encoder.taps(pixels, (8, 8), (1,), labels=True)
    (plain,) = encoder.taps(small[False], (8, 8), (1,), labels=True)
    torch.testing.assert_close(labels, plain)
    torch.testing.assert_close(encoder(pixels, (8, 8)), encoder(small[True], (8, 8)))
    assert (encoder(small[False], (8, 8)) - encoder(small[True], (8, 8))).abs().max() > 0.01


@pytest.mark.parametrize("name", VITS)
def test_the_patch_size_is_known_before_the_network_is_built(name: str) -> None:
    patch = trained_networks.NETWORKS[name].patch_size
    assert on_meta(name=name, layer=1).network.timm.patch_embed.patch_size == (patch, patch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "features"), [("dinov2-b14", 448, 448), ("dinov3-b16", 512, 512), ("pe-core-l14", 448, 336)]
)
def test_the_patches_of_the_encoder_meet_those_of_the_model(name: str, size: int, features: int) -> None:
    """32 x 32 tokens: the encoder sees 448 px with patch 14, 512 px with patch 16; interpolated, it sees what it is told."""
    grid, seen = (32, 32), {}

    def spy(encoder: ImageEncoder) -> ImageEncoder:
        encoder.network.timm.patch_embed.register_forward_pre_hook(
            lambda _, args: seen.update(shape=args[0].shape[-2:])
        )
        return encoder

    pixels = torch.empty(1, 3, 256, 256, device="meta")
    native = 24 * (size // 32)
    for options, edge in (
        ({}, size),
        ({"input_size": size}, size),
        ({"resize": "features"}, features),
        ({"resize": "features", "input_size": native}, native),
    ):
        assert spy(on_meta(name=name, layer=1, **options))(pixels, grid).shape[1] == 32 * 32
        assert tuple(seen["shape"]) == (edge, edge)
    with pytest.raises(ValueError, match="does not put the patches"):
        on_meta(name=name, input_size=native)(pixels, grid)
    with pytest.raises(ValueError, match="reads multiples"):
        on_meta(name=name, input_size=100, resize="features")(pixels, grid)


class Stem(nn.Module):
    """The least model with an image encoder."""

    grid = (8, 8)

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.encoder = ImageEncoder(config)
        self.fusion = FeatureFusion(self.encoder.channels, 32, config.zero_init)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.encoder(images, self.grid)
        return {"tokens": self.fusion(features.new_ones(*features.shape[:2], 32), features)}

    def flops(self, batch: dict[str, torch.Tensor]) -> int:
        count = len(batch["images"])
        return self.encoder.flops(count, self.grid) + self.fusion.flops(count * self.grid[0] * self.grid[1])


TRAINED = {"layer": 2, "resize": "features", "frozen": False, "zero_init": True}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dinov3-b16", {}),
        *((name, {"layer": 3}) for name in (*VITS, "alexnet")),
        ("pe-core-l14", TRAINED),
        ("alexnet", TRAINED),
    ],
)
def test_flops_are_exact_without_any_weights(name: str, options: dict[str, object]) -> None:
    config = ImageEncoderConfig(name, **options)
    report = triangulate(
        lambda: Stem(config),
        {"images": torch.zeros(2, 3, 64, 64)},
        ["images"],
        require_closed_form=True,
    )
    assert report.counters["torch"] == report.counters["closed_form"]
    # A frozen encoder has no backward pass, a trained one costs about three forward passes.
    ratio = report.training_per_sample / report.forward_per_sample
    assert ratio < 1.1 if config.frozen else 2 < ratio < 3


@pytest.mark.parametrize("name", VITS)
def test_every_weight_of_a_trained_encoder_gets_a_gradient(name: str) -> None:
    encoder = on_meta(name=name, layer=2, frozen=False)
    encoder(torch.empty(1, 3, 64, 64, device="meta"), (8, 8)).sum().backward()
    assert [key for key, weight in encoder.named_parameters() if weight.grad is None] == []


def test_a_trained_encoder_is_an_ordinary_submodule() -> None:
    stem = Stem(ImageEncoderConfig("alexnet", layer=2, frozen=False))
    stem(images())["tokens"].sum().backward()
    assert all(weight.grad is not None for weight in stem.parameters())
    assert stem.train().encoder.network.training
    other = copy.deepcopy(stem)
    with torch.no_grad():
        next(stem.encoder.parameters()).zero_()
    assert not torch.equal(stem(images())["tokens"], other(images())["tokens"])
    other.load_state_dict(stem.state_dict())
    assert torch.equal(stem(images())["tokens"], other(images())["tokens"])


def test_a_frozen_encoder_is_hidden_and_stays_as_it_is() -> None:
    stem = Stem(ImageEncoderConfig("alexnet", layer=2))
    assert list(stem.state_dict()) == ["fusion.linear.weight"]
    assert [key for key, _ in stem.named_parameters()] == ["fusion.linear.weight"]
    assert not stem.train().encoder.network.training
    pixels = images().requires_grad_()
    features = stem.encoder(pixels, (8, 8))
    assert not features.requires_grad
    assert torch.equal(features, stem.encoder(pixels, (8, 8)))


def test_a_frozen_encoder_follows_its_model_and_leaves_copies_alone() -> None:
    stem = Stem(ImageEncoderConfig("alexnet", layer=2))
    expected = stem(images())["tokens"]
    average = copy.deepcopy(stem)
    weight, copied = (next(model.encoder.network.parameters()) for model in (stem, average))
    assert weight.data_ptr() == copied.data_ptr(), "a copy shares the frozen weights"
    average.to("meta")
    assert average(torch.empty(2, 3, 64, 64, device="meta"))["tokens"].is_meta
    assert torch.equal(stem(images())["tokens"], expected)
    double = copy.deepcopy(stem).double()
    assert next(double.encoder.network.parameters()).dtype == torch.float64
    assert next(stem.encoder.network.parameters()).dtype == torch.float32
    moved = stem.to("cpu")
    assert next(moved.encoder.network.parameters()).data_ptr() == weight.data_ptr(), "nothing to move, nothing copied"


def test_a_model_and_its_average_share_one_frozen_network_wherever_they_go() -> None:
    model = Stem(ImageEncoderConfig("alexnet", layer=2))
    average = copy.deepcopy(model)
    expected = model(images())["tokens"]

    def places() -> set[tuple[int, torch.dtype]]:
        weights = [next(stem.encoder.network.parameters()) for stem in (model, average)]
        return {(weight.data_ptr(), weight.dtype) for weight in weights}

    for dtype in (torch.float64, torch.float32, torch.float64):
        model.to(dtype)
        assert len(places()) == 2, "one that is moved leaves the other where it is"
        average.to(dtype)
        assert len(places()) == 1
        assert next(iter(places()))[1] == dtype
    assert len(model.encoder._shared) == 1, "no network is kept that nobody uses"
    torch.testing.assert_close(average.float()(images())["tokens"], expected)
    assert list(average.state_dict()) == ["fusion.linear.weight"]


def test_a_frozen_encoder_can_be_sent_to_another_process() -> None:
    encoder = ImageEncoder(ImageEncoderConfig("alexnet", layer=2))
    received = pickle.loads(pickle.dumps(encoder)).double()
    torch.testing.assert_close(received(images(), (8, 8)).float(), encoder(images(), (8, 8)), atol=1e-4, rtol=1e-4)


def test_building_leaves_the_random_state_alone_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with torch.inference_mode():  # an encoder built in an evaluation must serve in training all the same
        encoder = ImageEncoder(ImageEncoderConfig("alexnet", frozen=False, layer=1))
    assert torch.equal(torch.rand(3), expected)
    encoder(images(), (8, 8)).sum().backward()
    assert capfd.readouterr() == ("", "")


def test_fusion_concatenates_feature_then_token_or_starts_at_the_token() -> None:
    tokens, features = torch.randn(2, 3, 16, 32), torch.randn(2, 3, 16, 20)
    joined = FeatureFusion(20, 32)
    weight = joined.linear.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    torch.testing.assert_close(joined(tokens, features), features @ weight[:, :20].T + tokens @ weight[:, 20:].T)
    branch = FeatureFusion(20, 32, zero_init=True)
    assert torch.equal(branch(tokens, features), tokens)
    branch(tokens, features).square().sum().backward()
    assert branch.linear.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vgg"}, "name must be one of dinov2-b14"),
        ({"name": "alexnet", "layer": 6}, r"must be 0 \(last\) to 5, got 6"),
        ({"name": "alexnet", "input_size": -1}, "input_size must be pixels"),
        ({"name": "alexnet", "resize": "patches"}, "resize must be one of image, features"),
        ({"name": "alexnet", "frozen": 1}, "frozen must be true or false"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageEncoderConfig(**options)
