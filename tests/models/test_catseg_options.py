"""Options of CAT-Seg: which are refused, what the presets say, and what each costs."""

import re
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.engine.flops import triangulate
from models.catseg import CAT_SEG_2023, PRESETS, VIT_B, CATSeg, CATSegConfig
from tests.models.small_catseg import CLIP_2023, CLIP_2024, MINILM, SMALL, inputs, narrow, small
from tests.models.small_clip import small_clip, small_swin

__all__ = ["narrow", "small_clip", "small_swin"]


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
