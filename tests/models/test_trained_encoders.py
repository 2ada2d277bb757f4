"""Trained image encoders in the view-synthesis models: as features of the inputs, and as REPA's teacher."""

import copy
import inspect
import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.engine.flops import triangulate
from models.efficient_lvsm import EfficientLVSM, EfficientLVSMConfig
from models.layers.rays import plucker_rays
from models.layers.repa import RepaConfig
from models.layers.trained_networks import NETWORKS, Network
from tests.models.helpers import SMALL, VARIANTS, build, meta_batch, random_batch, select

ALEXNET = {"name": "alexnet", "input_size": 64}
FAMILIES = ["lvsm-decoder-only", "lvsm-encoder-decoder", "efficient-lvsm"]
SIZE = (32, 32)


def repa(**options):
    return {"teacher": ALEXNET, "pairs": [[3, 2]], "hidden": 48, **options}


def fresh(variant, **options):
    """A model with its initial weights."""
    cls, own = VARIANTS[variant]
    torch.manual_seed(0)
    return cls(cls.config_class(**{**SMALL, **own, **options}))


def batch_with_targets(**options):
    batch = random_batch(size=SIZE, **options)
    torch.manual_seed(1)
    return batch, {**batch, "target_images": torch.rand(*batch["target_c2w"].shape[:2], 3, *SIZE)}


# --- features ------------------------------------------------------------------------------------------------------


def test_features_join_the_input_tokens():
    plain, batch = build("efficient-lvsm"), random_batch(2, 2, 1, SIZE)
    model = build("efficient-lvsm", encoder=ALEXNET)
    model.load_state_dict(plain.state_dict(), strict=False)
    channels, width = model.image_encoder.channels, 64
    weight = model.feature_fusion.linear.weight.data
    assert weight.shape == (width, channels + width)
    # Features first, then the token: passing the token on alone is the model without features.
    weight.copy_(torch.cat([torch.zeros(width, channels), torch.eye(width)], dim=1))
    torch.testing.assert_close(model(**batch)["images"], plain(**batch)["images"], atol=1e-6, rtol=0)

    weight[:, :channels] = torch.randn(width, channels) / channels
    seen = []
    model.input_self_attn_blocks[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    plain.input_self_attn_blocks[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    model(**batch)
    plain(**batch)
    features = model.image_encoder(batch["input_images"].flatten(0, 1), (4, 4))  # [B Vi, P, F], row by row
    torch.testing.assert_close(seen[0], seen[1] + features @ weight[:, :channels].T, atol=1e-5, rtol=0)


def test_a_zero_initialised_branch_starts_as_the_model_without_it():
    batch = random_batch(2, 2, 1, SIZE)
    model = fresh("efficient-lvsm", encoder={**ALEXNET, "zero_init": True})
    torch.testing.assert_close(model(**batch)["images"], fresh("efficient-lvsm")(**batch)["images"], atol=1e-7, rtol=0)
    model(**batch)["images"].square().mean().backward()
    assert model.feature_fusion.linear.weight.grad.any()


def test_the_other_weights_start_as_without_features_and_teacher():
    plain = fresh("efficient-lvsm").state_dict()
    both = fresh("efficient-lvsm", encoder=ALEXNET, repa=repa()).state_dict()
    assert all(torch.equal(value, both[key]) for key, value in plain.items())


def test_frozen_features_are_no_parameters_and_trained_ones_are():
    frozen = build("efficient-lvsm", encoder=ALEXNET)
    assert not [key for key in frozen.state_dict() if key.startswith("image_encoder")]
    torch.manual_seed(0)
    trained = fresh("efficient-lvsm", encoder={**ALEXNET, "frozen": False})
    trained(**random_batch(2, 2, 1, SIZE))["images"].square().mean().backward()
    weights = {key: weight for key, weight in trained.named_parameters() if key.startswith("image_encoder")}
    assert weights
    assert all(weight.grad is not None and weight.grad.any() for weight in weights.values())


def test_a_cache_with_features_is_exact():
    model, batch = build("efficient-lvsm", encoder=ALEXNET, registers=2).eval(), random_batch(2, 2, 1, SIZE)
    inputs = [select(batch, "input", [view]) for view in range(2)]
    with torch.no_grad():
        first, second = (model.encode(i["input_images"], i["input_c2w"], i["input_intrinsics"]) for i in inputs)
        images = model.render(first.append(second), batch["target_c2w"], batch["target_intrinsics"])["images"]
        torch.testing.assert_close(images, model(**batch)["images"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("zero_init", [False, True])
def test_flops_count_the_encoder_and_not_the_teacher(zero_init):
    with torch.device("meta"):
        model = EfficientLVSM(
            EfficientLVSMConfig(**SMALL, layers=2, encoder={**ALEXNET, "zero_init": zero_init}, repa=repa())
        ).eval()
    batch = meta_batch(2, 3, 2, SIZE)
    with FlopCounterMode(display=False) as counter:
        model(**batch)
    assert model.flops(batch) == counter.get_total_flops()


@pytest.mark.parametrize("content", [1e30, float("nan")])
def test_a_masked_view_does_not_reach_the_encoder(content):
    model, batch = build("efficient-lvsm", encoder=ALEXNET).eval(), random_batch(2, 3, 1, SIZE)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    inputs = {key: value for key, value in batch.items() if key.startswith("input")} | {"input_mask": mask}
    with torch.no_grad():
        expected = model(**batch, input_mask=mask)["images"]
        batch["input_images"][0, 1] = content
        assert torch.equal(model(**batch, input_mask=mask)["images"], expected)
        cached = model.render(model.encode(**inputs), batch["target_c2w"], batch["target_intrinsics"])["images"]
    torch.testing.assert_close(cached, expected, atol=1e-6, rtol=0)


@pytest.fixture
def small_vit(monkeypatch, tmp_path):
    """Options of an encoder with patches of 14 pixels, small enough to be run, with random weights from a file."""
    import timm

    name = "vit_tiny_patch14_test"
    make = timm.create_model

    def create(wanted, **options):
        small = {"patch_size": 14, "depth": 2, "embed_dim": 48, "num_heads": 3}
        return make("vit_tiny_patch16_224", **options, **(small if wanted == name else {}))

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setitem(NETWORKS, "dinov2-b14", Network(2, 14, 448, name))
    with torch.random.fork_rng():
        torch.save(create(name, pretrained=False).state_dict(), tmp_path / "vit.pth")
    return {"name": "dinov2-b14", "weights": str(tmp_path / "vit.pth")}


def test_aligned_inputs_are_tokens_of_the_image_that_the_encoder_sees(small_vit):
    batch = random_batch(2, 3, 2, SIZE)
    model = build("efficient-lvsm", encoder=small_vit, align_input=True).eval()
    assert model.rgbp_tokenizer[1].weight.shape == (64, 9 * 14 * 14)
    assert model.target_pose_tokenizer[1].weight.shape == (64, 6 * 8 * 8)
    seen = []
    model.rgbp_tokenizer.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    model.image_encoder.network.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    assert model(**batch)["images"].shape == (2, 2, 3, *SIZE)
    pixels, encoded = seen
    assert pixels.shape == (2, 3, 9, 56, 56)  # 4 x 4 tokens of 14 pixels
    # Colour is what the encoder reads, before its own scaling of it.
    rgb = (pixels[:, :, :3].flatten(0, 1) + 1) / 2
    torch.testing.assert_close(model.image_encoder.network.scaled(rgb), encoded, atol=1e-5, rtol=0)
    # The same camera: the mean ray of a token's patch is nearly that of its patch in the image as it came.
    plain = plucker_rays(batch["input_c2w"], batch["input_intrinsics"], *SIZE)
    torch.testing.assert_close(
        pixels[:, :, 3:].unfold(-2, 14, 14).unfold(-2, 14, 14).mean((-1, -2)),
        plain.unfold(-2, 8, 8).unfold(-2, 8, 8).mean((-1, -2)),
        atol=1e-4,
        rtol=0,
    )


def test_aligned_inputs_keep_what_holds_without(small_vit):
    model, batch = build("efficient-lvsm", encoder=small_vit, align_input=True).eval(), random_batch(2, 3, 1, SIZE)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    with torch.no_grad():
        expected = model(**batch, input_mask=mask)["images"]
        batch["input_images"][0, 1] = torch.nan
        assert torch.equal(model(**batch, input_mask=mask)["images"], expected)
        whole = {key: value[1:] for key, value in batch.items()}
        parts = [select(whole, "input", [view]) for view in range(3)]
        caches = [model.encode(p["input_images"], p["input_c2w"], p["input_intrinsics"]) for p in parts]
        cache = caches[0].append(caches[1]).append(caches[2])
        images = model.render(cache, whole["target_c2w"], whole["target_intrinsics"])["images"]
        torch.testing.assert_close(images[0], expected[1], atol=2e-6, rtol=0)
    with pytest.raises(ValueError, match="multiples of patch_size 8, got 32 x 30"):
        model(**{**batch, "input_images": batch["input_images"][..., :30]})


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"input_rgb": False}, {"repa": {"teacher": ALEXNET, "pairs": [[3, 2]]}}])
@pytest.mark.parametrize("name", ["dinov2-b14", "dinov3-b16"])
def test_flops_of_aligned_inputs_agree_with_two_counters(name, options):
    config = EfficientLVSMConfig(**SMALL, layers=2, encoder={"name": name, "layer": 2}, align_input=True, **options)
    fields = random_batch(2, 3, 2, SIZE)
    batch = {**fields, "target_images": torch.rand(2, 2, 3, *SIZE)}
    report = triangulate(lambda: EfficientLVSM(config), batch, list(fields), require_closed_form=True)
    assert report.device == "meta"
    assert report.counters["torch"] == report.counters["closed_form"]


def test_an_encoder_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="'resnet'"):
        EfficientLVSMConfig(encoder={"name": "resnet"})


# --- distillation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "on", "layer"),
    [
        *((variant, "targets", 2) for variant in VARIANTS),
        *((variant, on, 2) for variant in VARIANTS if "static" not in variant for on in ("inputs", "both")),
        *((f"efficient-lvsm {variant}", "inputs", 101) for variant in ("static cross", "extra encoder", "global ffn")),
    ],
)
def test_tokens_are_tapped_in_training_alone(variant, on, layer):
    plain, batch = build(variant), random_batch(2, 3, 2, SIZE)
    model = build(variant, repa=repa(on=on, pairs=[[3, layer]]))
    model.load_state_dict(plain.state_dict(), strict=False)
    outputs = model(**batch)
    views = {"input": 3, "target": 2}
    streams = {"inputs": ["input"], "targets": ["target"], "both": ["input", "target"]}[on]
    assert outputs.keys() == {"images", *(f"repa.{stream}.{layer}" for stream in streams)}
    for stream in streams:
        assert outputs[f"repa.{stream}.{layer}"].shape == (2, views[stream], 16, 64)
    assert torch.equal(outputs["images"], plain(**batch)["images"])
    assert model.eval()(**batch).keys() == {"images"}


@pytest.mark.parametrize("variant", [*FAMILIES, "efficient-lvsm cross", "efficient-lvsm extra encoder"])
def test_the_targets_last_layer_is_what_is_decoded(variant):
    model, batch = build(variant, repa=repa(on="targets")), random_batch(2, 3, 2, SIZE)
    outputs = model(**batch)
    assert torch.equal(model.image_token_decoder(outputs["repa.target.2"], *SIZE), outputs["images"])


def test_tapped_inputs_are_what_the_layer_made():
    model, batch = build("efficient-lvsm extra encoder", repa=repa(on="inputs", pairs=[[3, 1], [3, 102]])), None
    batch, seen = random_batch(2, 3, 1, SIZE), {}
    for layer, block in ((1, model.input_self_attn_blocks[0]), (102, model.extra_enc[1])):
        block.register_forward_hook(lambda _module, _inputs, output, layer=layer: seen.__setitem__(layer, output))
    outputs = model(**batch)
    for layer in (1, 102):
        assert torch.equal(outputs[f"repa.input.{layer}"], seen[layer].view(2, 3, 18, 64)[:, :, 2:])


def test_lvsm_taps_the_input_tokens_of_its_sequences():
    batch = random_batch(2, 3, 2, SIZE)
    decoder_only = build("lvsm-decoder-only", repa=repa(pairs=[[3, 1]]))
    encoder_decoder = build("lvsm-encoder-decoder", repa=repa(pairs=[[3, 1]]))
    seen = []
    for block in (decoder_only.transformer_blocks[0], encoder_decoder.transformer_encoder[0]):
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    tapped = [model(**batch)["repa.input.1"] for model in (decoder_only, encoder_decoder)]
    copies = seen[0].view(2, 2, 4 * 16, 64)[:, :, : 3 * 16].view(2, 2, 3, 16, 64)
    torch.testing.assert_close(tapped[0], copies.sum(1) / 2, atol=1e-6, rtol=0)
    assert torch.equal(tapped[1], seen[1][:, 24:].view(2, 3, 16, 64))


@pytest.mark.parametrize("variant", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_distillation_loss_reaches_the_layers_before_the_tap(variant, checkpointing):
    model = build(variant, repa=repa(pairs=[[3, 1]]), gradient_checkpointing=checkpointing)
    inputs, batch = batch_with_targets()
    model.auxiliary_loss(batch, model(**inputs), progress=0.0).backward()
    reached = {key.rsplit(".", 1)[0] for key, weight in model.named_parameters() if weight.grad is not None}
    for part in ("target_pose_tokenizer.1", "repa_projector.input.3.1.0", "repa_projector.target.3.1.4"):
        assert part in reached
    # Behind the tap nothing; the decoder of LVSM's other form reads the end of its whole encoder.
    assert [key for key in reached if re.match(r"\w+(blocks|decoder)\.0\.", key)]
    assert not [key for key in reached if re.match(r"\w+(blocks|decoder)\.1\.", key) or "image_token_decoder" in key]


@pytest.mark.parametrize("variant", FAMILIES)
def test_distillation_stops_at_its_progress(variant):
    model = build(variant, repa=repa(until=0.5))
    inputs, batch = batch_with_targets()
    outputs = model(**inputs)
    assert model.auxiliary_loss(batch, outputs) > 0
    assert model.auxiliary_loss(batch, outputs, progress=0.5) == 0
    assert "progress" in inspect.signature(model.auxiliary_loss).parameters


@pytest.mark.parametrize("variant", FAMILIES)
def test_without_distillation_there_is_no_auxiliary_loss(variant):
    assert not hasattr(build(variant), "auxiliary_loss")


@pytest.mark.parametrize("variant", FAMILIES)
def test_a_copy_distils_with_its_own_projector(variant):
    model = build(variant, repa=repa())
    other = copy.deepcopy(model)
    assert other.auxiliary_loss.__self__ is other.repa_projector
    assert other.repa_projector is not model.repa_projector


@pytest.mark.parametrize("variant", FAMILIES)
def test_published_projectors_are_loaded_where_they_are_used(variant):
    model = build(variant, repa=repa())
    options = {**SMALL, **VARIANTS[variant][1]}
    state = {**model.state_dict(), "repa_encoder.pos_embed": torch.zeros(3)}
    keys = [key for key in state if key.startswith("repa_projector.")]
    assert sorted(keys) == sorted(
        f"repa_projector.{stream}.3.2.{index}.{kind}"
        for stream in ("input", "target")
        for index in (0, 2, 4)
        for kind in ("weight", "bias")
    )
    loaded = type(model).from_reference(state, **options, repa=repa())
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    without = type(model).from_reference(state, **options)
    assert not [key for key in without.state_dict() if "repa" in key]
    del state[keys[0]]
    with pytest.raises(ValueError, match=f"missing key '{keys[0]}'"):
        type(model).from_reference(state, **options, repa=repa())


@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        ("efficient-lvsm", {"pairs": [[3, 3]]}, "repa.pairs: the inputs have no layer 3, those are 1, 2: name another"),
        ("efficient-lvsm", {"pairs": [[3, 101]]}, "the inputs have no layer 101"),
        ("efficient-lvsm static", {}, "the inputs have no layer 2, there are none"),
        ("efficient-lvsm extra encoder", {"pairs": [[3, 101]]}, "the targets have no layer 101, those are 1, 2"),
        ("lvsm-decoder-only", {"pairs": [[3, 4]]}, "the inputs have no layer 4"),
        ("lvsm-encoder-decoder", {"pairs": [[3, 4]], "on": "targets"}, "the targets have no layer 4"),
    ],
)
def test_layers_that_do_not_exist_are_named(variant, options, message):
    cls, own = VARIANTS[variant]
    with pytest.raises(ValueError, match=message):
        cls.config_class(**SMALL, **own, repa=repa(**options))
    assert cls.config_class(**SMALL, **own, repa=RepaConfig(**repa(on="targets")))
