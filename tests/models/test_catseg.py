import copy
import re
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.engine.flops import triangulate
from models.catseg import CAT_SEG_2023, PRESETS, VIT_B, CATSeg, CATSegConfig
from models.layers.text_tower import TextCache
from tests.models.helpers import randomise
from tests.models.small_clip import shaken, small_clip, small_swin

__all__ = ["small_clip", "small_swin"]
HEAD = {
    "hidden_width": 16,
    "layers": 1,
    "heads": 2,
    "resolution": (4, 4),
    "window_size": 2,
    "decoder_widths": (16, 16),
    "class_padding": None,
    "test_pooling_size": (1, 1),
}
SMALL = {
    **HEAD,
    "feature_width": 12,
    "text_guidance": (12, 8),
    "appearance_guidance": (12, 8),
    "decoder_guidance": ((10, 6), (8, 4)),
    "crop_size": 16,
    "class_list": "drawn",
    "tokenizer": "bytes",
    "towers": "small",
    "train_towers": "all",
    "image_widths": (6, 10, 16),
    "image_layers": 1,
    "text_width": 16,
    "tower_heads": 2,
}
MINILM = {"tokenizer": "minilm", "text_width": 64}
CLIP_2024 = {
    **HEAD,
    "feature_width": 20,
    "text_guidance": (20, 8),
    "appearance_guidance": (20, 8),
    "decoder_guidance": ((8, 6), (8, 4)),
    "class_padding": 6,
    "crop_size": 16,
    "clip_model": "small-clip",
    "clip_weights": "random",
}
CLIP_2023 = {
    **CLIP_2024,
    **CAT_SEG_2023,
    "prompts": 3,
    "appearance_guidance": (64, 8),
    "decoder_guidance": ((32, 16), (8, 4)),
    "guidance_weights": "random",
}


@pytest.fixture
def narrow(small_clip, small_swin, monkeypatch):
    """CLIP and Swin are small ones, of other widths than the published."""
    monkeypatch.setattr("models.layers.catseg_config.CHANNELS", (64, 32, 16))


def small(**changes):
    torch.manual_seed(0)
    return randomise(CATSeg(CATSegConfig(**{**SMALL, **changes})))


def inputs(samples=2, classes=5, prompts=1, length=7, seed=0, size=16, highest=99):
    generator = torch.Generator().manual_seed(seed)
    names = torch.randint(1, highest, (samples, classes, prompts, length), generator=generator)
    names[..., -2:] = 0
    return {"image": torch.rand(samples, 3, size, size, generator=generator), "names": names}


def step(model, batch):
    """One step of training, so large that it is seen."""
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    model.train()(**batch)["logits"].square().mean().backward()
    optimizer.step()
    model.eval()


# --- forward -------------------------------------------------------------------------------------------------------


def test_logits_follow_the_order_of_the_classes_and_padding_does_not_matter():
    model, batch = small().eval(), inputs()
    expected = model(**batch)["logits"]
    assert expected.shape == (2, 5, 16, 16)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(batch["names"][:, order], (0, 4))
    found = model(image=batch["image"], names=padded)["logits"]
    torch.testing.assert_close(found, expected[:, order], atol=1e-5, rtol=1e-4)


def test_a_fixed_list_is_a_drawn_one_that_all_samples_share():
    model, batch = small().eval(), inputs()
    batch["names"][1] = batch["names"][0]
    expected = model(**batch)["logits"]
    model.config = replace(model.config, class_list="fixed")
    torch.testing.assert_close(model(**batch)["logits"], expected, atol=1e-5, rtol=1e-4)


def test_towers_aligned_by_cosine_fit_the_aggregator():
    aligned = small(head="cosine")
    weights = aligned.state_dict()
    assert {name.split(".")[0] for name in weights} == {"image_tower", "text_tower", "cosine"}
    fresh = small().load_state_dict({k: v for k, v in weights.items() if "tower" in k}, strict=False)
    assert fresh.unexpected_keys == []
    assert all(name.startswith("aggregator.") for name in fresh.missing_keys)
    batch = inputs()
    assert aligned(**batch)["logits"].shape == (2, 5, 4, 4)
    text = aligned.encode_text(batch["names"][0])
    assert aligned.segment(torch.rand(1, 3, 20, 24), text, (20, 24)).shape == (1, 5, 20, 24)


def test_gradients_reach_every_weight():
    model = small(prompts=2)
    model(**inputs(prompts=2))["logits"].square().mean().backward()
    assert [name for name, weight in model.named_parameters() if not weight.grad.any()] == []


def test_bfloat16_is_finite():
    model = small()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**inputs())["logits"].float().square().mean()
    loss.backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": "clip"}, "tokenizer must be bytes or minilm with towers small, got 'clip'"),
        ({"train_towers": "qv"}, "train_towers must be all with towers small"),
        ({"crop_size": 24}, "crop_size must be a multiple of 4 times the edge of a square resolution"),
        ({"appearance_guidance": (16, 8)}, "appearance_guidance must begin with 12, which the towers give, got 16"),
        ({"decoder_guidance": ((10, 8), (8, 4))}, "decoder_guidance must begin with 6"),
        ({"guidance_backbone": "swin-b"}, "appearance_guidance must begin with 512"),
        ({"head": "none"}, "head must be one of aggregator, cosine, got 'none'"),
        ({"text_layers": -1}, "text_layers must be an integer >= 0, got -1"),
        ({"overlap": 1}, "overlap must be at least 0 and below 1"),
        ({"overlap": 0.5, "test_size": 21}, "got 21: try 24"),
        ({"test_size": 16}, "test_size must be above crop_size 16 with inference sliding, got 16"),
        ({"overlap": 0.5, "test_size": 18}, "got 18: try 24"),
        ({"image_widths": (8, 16)}, "image_widths must hold 3 integers >= 1"),
        ({"image_widths": (0, 8, 16)}, "image_widths must hold 3 integers >= 1"),
        ({"text_width": 17, "text_layers": 0}, "text_width must be even, got 17: try 18"),
        ({"fold_padding": True, "class_padding": None}, "fold_padding must be false without class_padding"),
        ({"tower_heads": 3}, "image_widths must be a multiple of its 3 heads"),
    ],
)
def test_options_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CATSegConfig(**{**SMALL, **changes})


@pytest.mark.parametrize(
    ("options", "change", "without"),
    [
        (CLIP_2024, {"image_widths": (8, 16, 32)}, "towers clip"),
        (CLIP_2024, {"image_layers": 3}, "towers clip"),
        (CLIP_2024, {"tower_heads": 2}, "towers clip"),
        (CLIP_2024, {"text_width": 32}, "tokenizer clip"),
        (CLIP_2024, {"guidance_weights": "timm"}, "guidance_backbone none"),
        (CLIP_2024, {"inference": "single", "test_size": 32}, "inference single"),
        (CLIP_2023, {"guidance_layers": (0, 1)}, "guidance_backbone swin-b"),
        (CLIP_2024, {"head": "cosine", "guidance_layers": (0, 1)}, "head cosine"),
        (CLIP_2024, {"decoder": False, "guidance_layers": (0, 1)}, "the decoder's guidance switched off"),
        (CLIP_2023, {"head": "cosine", "guidance_backbone": "swin-b"}, "head cosine"),
        (
            CLIP_2023,
            {"appearance_guidance": (0, 0), "decoder_guidance": ((0, 0), (0, 0)), "guidance_backbone": "swin-b"},
            "every guidance of the picture switched off",
        ),
        (SMALL, {"clip_model": "ViT-B-16"}, "towers small"),
        (SMALL, {"clip_rate": 0.1}, "towers small"),
        (SMALL, {"clip_weights": "random"}, "towers small"),
        (SMALL, {"guidance_layers": (0, 1)}, "towers small"),
        (SMALL, {"version": "2023"}, "towers small"),
        (SMALL, {"inference": "single", "overlap": 0.5}, "inference single"),
        (SMALL, {**MINILM, "text_layers": 1}, "tokenizer minilm"),
    ],
)
def test_options_without_effect_are_refused(options, change, without, narrow):
    name = list(change)[-1]
    with pytest.raises(ValueError, match=re.escape(f"{name} must be left out with {without}, where it has no effect")):
        CATSegConfig(**{**options, **change})


def test_what_a_preset_says_is_harmless_where_it_has_no_effect():
    clip = {"towers": "clip", "tokenizer": "clip", "train_towers": "qv"}
    small_towers = {"towers": "small", "tokenizer": "bytes", "train_towers": "all"}
    for preset in ("tiny", "small"):
        for changes in (clip, {"tokenizer": "minilm"}, {"head": "cosine"}):
            replace(PRESETS[preset], **changes)
    replace(PRESETS["paper"], **small_towers, decoder_guidance=((32, 16), (16, 8)), inference="single")
    CATSegConfig(**{**SMALL, **MINILM, "tower_heads": 3, "image_widths": (6, 10, 15)})  # 64 has no heads to part it


def test_inputs_that_do_not_fit():
    model, batch = small(), inputs()
    with pytest.raises(ValueError, match=r"names must be \[B, T, P, L\] with B = 2"):
        model(image=batch["image"], names=batch["names"][0])
    for head in ("aggregator", "cosine"):
        with pytest.raises(ValueError, match=r"and P = 1 prompts, got \[2, 5, 3, 7\]"):
            small(head=head)(**inputs(prompts=3))
    for names in (inputs(prompts=3)["names"][0], batch["names"]):
        with pytest.raises(ValueError, match=r"names must be \[T, P, L\] with P = 1 prompts, got \["):
            model.encode_text(names)
    with pytest.raises(ValueError, match=r"image must be \[B, 3, 16, 16\], as crop_size says"):
        model(**inputs(size=20))


# --- evaluation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inference", ["sliding", "single"])
def test_segment_is_forward_on_the_windows(inference):
    model = small(inference=inference).eval()
    batch = inputs(size=20)
    text = model.encode_text(batch["names"][0])
    assert text.shape == (5, 1, 12)
    windows = model.config.windows
    assert windows.count == (5 if inference == "sliding" else 1)
    crops = windows.cut(batch["image"])
    lists = batch["names"][:1].expand(len(crops), -1, -1, -1)
    (expected,) = windows.merge(model(image=crops, names=lists)["logits"], (9, 13))
    found = model.segment(batch["image"], text, (9, 13))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_places_that_are_not_finite_have_no_label():
    model, batch = small().eval(), inputs(size=20)
    batch["image"][..., 3, 3] = torch.nan
    labels = model.segment_labels(batch["image"], model.encode_text(batch["names"][0]), (20, 20))
    assert (labels == -1).all(), "attention carries it everywhere"


def test_chunks_of_classes_change_nothing():
    model = small().eval()
    batch = inputs(size=20)
    text = model.encode_text(batch["names"][0])
    whole, labels = (ask(batch["image"], text, (20, 20)) for ask in (model.segment, model.segment_labels))
    assert torch.equal(labels, whole.argmax(1))
    for part in (model, model.aggregator):
        part.config = replace(part.config, class_chunk=2)
    torch.testing.assert_close(model.segment(batch["image"], text, (20, 20)), whole, atol=1e-5, rtol=0)
    first, second = whole.topk(2, dim=1).values.unbind(1)
    clear = first - second > 1e-5  # the classes of a random model are close to one another
    assert clear.float().mean() > 0.5
    assert torch.equal(model.segment_labels(batch["image"], text, (20, 20))[clear], labels[clear])


@pytest.mark.parametrize("text_training", ["graph", "cached"])
def test_nothing_is_left_of_an_earlier_vocabulary(text_training):
    """Evaluate with one list of classes, train a step on another, evaluate with a third: as if there had been nothing else."""
    model = small(text_training=text_training).eval()
    first, trained, last = inputs(classes=4, seed=1), inputs(classes=6, seed=2), inputs(classes=3, seed=3)
    with torch.inference_mode():
        before = model.segment(first["image"], model.encode_text(first["names"][0]), (16, 16))
    step(model, trained)
    fresh = CATSeg(model.config).eval()
    fresh.load_state_dict(model.state_dict())
    with torch.inference_mode():
        found, expected = (
            net.segment(last["image"], net.encode_text(last["names"][0]), (16, 16)) for net in (model, fresh)
        )
        again = model.segment(first["image"], model.encode_text(first["names"][0]), (16, 16))
    assert found.shape[1] == 3
    assert torch.equal(found, expected)
    assert not torch.allclose(again, before, atol=1e-4)


# --- text ----------------------------------------------------------------------------------------------------------


def test_cached_text_is_the_same_and_frozen():
    graph, batch = small(), inputs()
    cached = CATSeg(replace(graph.config, text_training="cached"))
    cached.load_state_dict(graph.state_dict())
    for _ in range(2):
        torch.testing.assert_close(cached(**batch)["logits"], graph(**batch)["logits"], atol=1e-5, rtol=1e-4)
    assert not any(weight.requires_grad for weight in cached.text_tower.parameters())
    cached(**batch)["logits"].sum().backward()
    assert all(weight.grad is not None for weight in cached.image_tower.parameters())


def test_a_cached_tower_reads_a_name_once(monkeypatch):
    model, batch, read = small(text_training="cached"), inputs(), []
    encode = model.text_tower.encode
    monkeypatch.setattr(model.text_tower, "encode", lambda tokens: read.append(len(tokens)) or encode(tokens))
    model(**batch), model.encode_text(batch["names"][0])
    assert read == [1] * 10
    model.text_tower.load_state_dict({name: value * 2 for name, value in model.text_tower.state_dict().items()})
    model.encode_text(batch["names"][0])
    assert read == [1] * 15
    assert isinstance(copy.deepcopy(model)._cache, TextCache)


def test_what_is_cached_of_a_text_does_not_depend_on_what_is_read_with_it():
    model, names = small(text_training="cached").eval(), inputs()["names"][0]
    together = model.encode_text(names)
    alone = copy.deepcopy(model)
    for number in reversed(range(len(names))):
        alone.encode_text(names[number : number + 1])
    assert torch.equal(alone.encode_text(names), together), "or a run that goes on is not the same to the bit"


# --- counting ------------------------------------------------------------------------------------------------------


def test_flops_three_ways():
    report = triangulate(lambda: small(prompts=2), inputs(prompts=2), ("image", "names"))
    assert report.counters["closed_form"] == report.counters["torch"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"text_training": "cached", "class_list": "fixed"},
        {"head": "cosine", "text_layers": 0},
        {**MINILM, "text_training": "cached", "decoder_guidance": ((10, 6), (0, 4))},
        {**MINILM, "class_list": "fixed"},
    ],
)
def test_flops_of_small_towers(changes):
    batch = {name: value.to("meta") for name, value in inputs().items()}
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = CATSeg(CATSegConfig(**{**SMALL, **changes}))
        model(**batch)
    assert model.flops(batch) == counter.get_total_flops()


@pytest.mark.parametrize("options", [CLIP_2024, CLIP_2023], ids=["2024", "2023"])
def test_flops_of_both_versions(options, narrow):
    batch = inputs(prompts=options.get("prompts", 1))
    with torch.device("meta"):
        model = CATSeg(CATSegConfig(**{**options, "resolution": (12, 12), "window_size": 12})).eval()
        batch = {name: value.to("meta") for name, value in batch.items()}
        with FlopCounterMode(display=False) as counter:
            model(**batch)
    assert model.flops(batch) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("options", "trained", "total"),
    [
        ({}, 70.3, 433.7),
        ({"train_towers": "full"}, 393.1, 433.7),
        (VIT_B, 25.1, 154.3),
        (CAT_SEG_2023, 104.2, 490.3),
    ],
    ids=["L", "L full", "B", "2023 L"],
)
def test_published_sizes(options, trained, total):
    """Millions of weights, trained and in all (reference sheet, 1.6)."""
    with torch.device("meta"):
        model = CATSeg(replace(PRESETS["paper"], **options))
    counts = [sum(w.numel() for w in model.parameters() if w.requires_grad or every) for every in (False, True)]
    assert [round(count / 1e6, 1) for count in counts] == [trained, total]


def test_presets_fit_their_task():
    for name, config in PRESETS.items():
        if name != "paper":
            with torch.device("meta"):
                model = CATSeg(config)
            batch = inputs(size=config.crop_size)
            logits = model(**{name: value.to("meta") for name, value in batch.items()})["logits"]
            assert logits.shape == (2, 5, 4 * config.resolution[0], 4 * config.resolution[1])
    assert PRESETS["paper"].windows.out_res == (640, 640)
    assert PRESETS["paper"].windows.stride == 256


# --- published checkpoints -----------------------------------------------------------------------------------------


def published(model):
    """The model's weights as checkpoints of CAT-Seg hold them; the fused attention of 2023 too."""
    state, fused = {}, {}
    for name, value in model.state_dict().items():
        head, _, rest = name.partition(".")
        if head == "aggregator":
            state[f"sem_seg_head.predictor.transformer.{rest}"] = value
        elif head == "image_tower":
            state[rest] = value
        elif head == "clip":
            key = f"sem_seg_head.predictor.clip_model.{rest}"
            if model.config.version == "2023" and key.endswith("_proj_weight"):
                fused.setdefault(key[: -len("q_proj_weight")], {})[key[-len("q_proj_weight")]] = value
            else:
                state[key] = value
        else:
            key = rest.replace("norms.", "norm")
            key = re.sub(r"swin\.layers_(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key)
            key = re.sub(r"swin\.layers_(\d)", r"layers.\1", key).removeprefix("swin.")
            state[f"backbone.{key}"] = value
    for stem, parts in fused.items():
        state[f"{stem}in_proj_weight"] = torch.cat([parts[part] for part in "qkv"])
    return state


@pytest.mark.parametrize("options", [CLIP_2024, CLIP_2023], ids=["2024", "2023"])
def test_the_last_block_of_clip_is_that_of_the_version(options, narrow):
    assert CATSeg(CATSegConfig(**options)).clip.own_residual == (options is CLIP_2023)


@pytest.mark.parametrize("options", [CLIP_2024, CLIP_2023], ids=["2024", "2023"])
def test_published_checkpoints_load_strictly(options, narrow):
    model = CATSeg(CATSegConfig(**options)).eval()
    for part in model.children():
        shaken(part)
    state = published(model)
    assert {key.split(".")[0] for key in state} - {"sem_seg_head"} == (
        {"backbone"} if options is CLIP_2023 else {"upsample1", "upsample2"}
    )
    loaded = CATSeg.from_reference({"model": state}, **options).eval()
    batch = inputs(prompts=options.get("prompts", 1), highest=98)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch)["logits"], model(**batch)["logits"], atol=0, rtol=0)
    for key in ("sem_seg_head.predictor.transformer.head.weight", "sem_seg_head.predictor.clip_model.visual.proj"):
        with pytest.raises(ValueError, match=f"missing key '[a-z.]*{key.rsplit('.', 2)[-1]}'"):
            CATSeg.from_reference({name: value for name, value in state.items() if name != key}, **options)
    with pytest.raises(ValueError, match=r"unexpected key 'criterion\.weight'"):
        CATSeg.from_reference({**state, "criterion.weight": torch.ones(1)}, **options)


@pytest.mark.parametrize("options", [CLIP_2024, CLIP_2023], ids=["2024", "2023"])
def test_what_of_clip_is_trained_gets_gradients(options, narrow):
    model = CATSeg(CATSegConfig(**options))
    for part in model.children():
        shaken(part)
    model(**inputs(prompts=options.get("prompts", 1), classes=4, highest=98))["logits"].square().mean().backward()
    trained = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    idle = {name for name, gradient in trained.items() if gradient is None or not gradient.any()}
    assert idle == trained.keys() & set(model.unused_parameters())
    assert idle
    assert any(name.startswith("clip.transformer") for name in trained) == (options is CLIP_2024)


def test_feature_width_must_be_that_of_clip(small_clip):
    with pytest.raises(ValueError, match="feature_width must be the 20 of small-clip, got 24"):
        CATSeg(
            CATSegConfig(**{**CLIP_2024, "feature_width": 24, "text_guidance": (24, 8), "appearance_guidance": (24, 8)})
        )


def test_what_was_trained_elsewhere_is_named(small_clip, tmp_path):
    import open_clip

    file = tmp_path / "clip.pt"
    torch.save(open_clip.create_model("small-clip").state_dict(), file)
    (part,) = CATSeg(CATSegConfig(**{**CLIP_2024, "clip_weights": str(file)})).pretrained_parts()
    assert (part["name"], part["source"], part["frozen"], len(part["sha256"])) == ("small-clip", "clip.pt", False, 64)
    assert CATSeg(CATSegConfig(**CLIP_2024)).pretrained_parts() == []
    with pytest.raises(ValueError, match="got null"):
        CATSeg(CATSegConfig(**{**CLIP_2024, "clip_weights": None}))
