import dataclasses
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from bench.engine.flops import triangulate
from models.convmae import PRESETS, SIZES, ConvMAE, ConvMAEConfig, ConvMAEMemoryBackbone, ConvMAEMemoryConfig
from tests.models.memory_clips import READS, SMALL, build, clip, joined, recompute, write_all

# --- reading the memory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [{}, {"frames": 1, "objects": 1}, {"samples": 1, "objects": 3, "size": (32, 32)}])
@pytest.mark.parametrize("read", ["dense", "learned"])
def test_the_cached_read_is_the_published_recomputation(read, shape):
    model, batch = build(read), clip(**shape)
    assert read == "dense" or all(block.log_scale.all() for block in model.blocks3)
    with torch.no_grad():
        expected, tally = recompute(model, batch)
        torch.testing.assert_close(model(**batch)["f16"], expected, atol=1e-5, rtol=1e-5)
        query, written = model.encode_query(batch["query_image"]), write_all(model, batch)
        for memory in (written, joined(written)):
            result = model.read(query, memory, len(written), usage=True)
            torch.testing.assert_close(result.f16, expected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(result.usage, tally, atol=2e-4, rtol=0)


@pytest.mark.parametrize("read", READS)
def test_every_read_out_written_frame_by_frame_is_forward(read):
    model, batch = build(read), clip(samples=1)
    with torch.no_grad() if read != "flex" else torch.enable_grad():  # with gradients flex compiles nothing
        outputs = model(**batch)
        query, written = model.encode_query(batch["query_image"]), write_all(model, batch)
        plain, told = (model.read(query, written, 3, usage=usage) for usage in (False, True))
    assert plain.usage is None
    assert told.usage.shape == (3, 2, 3)
    assert (told.usage >= 0).all()
    assert (told.usage.sum(-1) <= 12 + 1e-4).all()
    for f16 in (plain.f16, told.f16):
        torch.testing.assert_close(f16, outputs["f16"], atol=2e-5, rtol=1e-5)
    assert outputs["f16"].shape == (1, 2, 24, 3, 4)
    assert outputs["f8"].shape == (1, 2, 16, 6, 8)
    assert outputs["f4"].shape == (1, 2, 12, 12, 16)
    assert torch.equal(outputs["f4"][0, 0], query.f4[0])
    assert torch.equal(outputs["f8"][0, 1], query.f8[0])


def test_the_exact_identities_of_the_model():
    batch, dense = clip(), build()
    expected = dense(**batch)
    for topk, scope in [(36, "all"), (12, "each"), (10**6, "all"), (10**6, "each")]:
        model = build("topk all scatter", topk=topk, topk_scope=scope)
        torch.testing.assert_close(model(**batch)["f16"], expected["f16"], atol=1e-5, rtol=0)
    one = clip(frames=1)
    assert torch.equal(build("topk all scatter")(**one)["f16"], build("topk each scatter")(**one)["f16"])
    for read in ("dense", "topk all scatter", "topk each scatter", "shared-subset"):
        model, order = build(read), torch.tensor([2, 0, 1])
        moved = {name: value if name == "query_image" else value[:, order] for name, value in batch.items()}
        torch.testing.assert_close(model(**moved)["f16"], model(**batch)["f16"], atol=1e-5, rtol=0)
    other = clip(seed=1)
    changed = dense(**{**other, "query_image": batch["query_image"]})
    assert torch.equal(changed["f8"], expected["f8"])
    assert torch.equal(changed["f4"], expected["f4"])
    assert not torch.allclose(changed["f16"], expected["f16"])


def test_the_read_outs_differ_where_they_should():
    batch = clip()
    outputs = [
        build(read)(**batch)["f16"] for read in ("dense", "topk all scatter", "topk each scatter", "shared-subset")
    ]
    for first, second in product(range(4), repeat=2):
        assert first == second or (outputs[first] - outputs[second]).abs().max() > 1e-3


def test_which_blocks_read_less():
    batch = clip()
    topk = {"memory_read": "topk", "topk": 1, "topk_scope": "all"}
    models = {layers: build(topk_layers=layers, **topk) for layers in ("all", "half", "last", "none")}
    sparse = {name: [model.memory_read(layer).kind == "topk" for layer in range(3)] for name, model in models.items()}
    assert sparse == {
        "all": [True, True, True],
        "half": [False, True, True],  # from depth // 2 on
        "last": [False, False, True],
        "none": [False, False, False],
    }
    assert torch.equal(models["none"](**batch)["f16"], build()(**batch)["f16"])
    assert not torch.allclose(models["half"](**batch)["f16"], models["last"](**batch)["f16"])


@pytest.mark.parametrize("read", ["topk each scatter", "shared-subset"])
def test_training_may_be_dense(read):
    batch, dense = clip(), build()
    both, inference = build(read), build(read, topk_training=False)
    assert torch.equal(both(**batch)["f16"], inference(**batch)["f16"])
    assert torch.equal(both.train()(**batch)["f16"], both.eval()(**batch)["f16"])
    assert torch.equal(inference.train()(**batch)["f16"], dense(**batch)["f16"])
    assert inference.flops(batch) == dense.flops(batch)


@pytest.mark.parametrize("objects", [1, 3])
def test_the_trunk_of_the_query_runs_once_whatever_the_number_of_objects(objects, monkeypatch):
    model, batch = build(), clip(objects=objects)
    rows = []
    trunk = ConvMAEMemoryBackbone.trunk
    monkeypatch.setattr(
        ConvMAEMemoryBackbone, "trunk", lambda self, embed, x: rows.append((embed, len(x))) or trunk(self, embed, x)
    )
    query, written = model.encode_query(batch["query_image"]), write_all(model, batch)
    assert rows == [("patch_embed1_query", 2)] + 3 * [("patch_embed1_memory", 2 * objects)]
    model.read(query, written, 3)
    assert len(rows) == 4


def test_objects_meet_in_the_channel_of_the_others_alone():
    model, batch = build(), clip(samples=1, objects=3)
    expected = model(**batch)["f16"]
    order = torch.tensor([1, 2, 0])
    moved = model(**{**batch, "memory_masks": batch["memory_masks"][:, :, order]})["f16"]
    torch.testing.assert_close(moved, expected[:, order], atol=1e-5, rtol=0)
    # Mass that goes from one of the others to another one changes nothing for the first.
    masks = batch["memory_masks"].clone()
    masks[:, :, 1], masks[:, :, 2] = masks[:, :, 1] + masks[:, :, 2], 0
    traded = model(**{**batch, "memory_masks": masks})["f16"]
    torch.testing.assert_close(traded[:, 0], expected[:, 0], atol=1e-5, rtol=0)
    assert not torch.allclose(traded[:, 1], expected[:, 1], atol=1e-3)
    # Alone, an object's second channel is zeros.
    alone = model(**{**batch, "memory_masks": batch["memory_masks"][:, :, :1]})["f16"]
    assert not torch.allclose(alone[:, 0], expected[:, 0], atol=1e-3)


def test_the_memory_embedding_reads_picture_own_mask_and_others():
    model, batch = build(), clip(objects=2)
    image, masks = batch["memory_images"][:, 0], batch["memory_masks"][:, 0]
    seen = []
    model.patch_embed1_memory.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.write(image, masks)
    second = seen[0][1]  # sample 0, object 1
    assert torch.equal(second[:3], image[0])
    assert torch.equal(second[3], masks[0, 1])
    torch.testing.assert_close(second[4], masks[0, 0])


def test_memory_frames_do_not_read_the_query_nor_one_another():
    model, batch = build(), clip()
    first, *rest = write_all(model, batch)
    again = model.write(batch["memory_images"][:, 0], batch["memory_masks"][:, 0])
    assert torch.equal(first.keys, again.keys)
    assert torch.equal(first.values, again.values)
    assert first.keys.shape == (3, 4, 2, 12, 12)  # L, B * O, h, hw, d
    assert not torch.allclose(first.keys, rest[0].keys)


@pytest.mark.parametrize(("frames", "held"), [(2, 36), (4, 36), (0, 36)])
def test_a_memory_of_another_length_is_refused(frames, held):
    model, batch = build(), clip()
    query, written = model.encode_query(batch["query_image"]), write_all(model, batch)
    with pytest.raises(ValueError, match=f"of the query's 12 tokens each, got {frames} and {held} tokens in memory"):
        model.read(query, written, frames)


# --- sizes and options ---------------------------------------------------------------------------------------------


def test_the_position_table_is_resized_where_the_grid_differs():
    model = build(image_size=64)
    assert torch.equal(model.positions(4, 4), model.pos_embed[:, 1:])
    grid = model.pos_embed[:, 1:].view(1, 4, 4, 24).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, size=(3, 6), mode="bicubic", align_corners=False)
    assert torch.equal(model.positions(3, 6), expected.permute(0, 2, 3, 1).reshape(1, 18, 24))
    fresh = ConvMAEMemoryBackbone(ConvMAEMemoryConfig(**SMALL)).pos_embed
    assert torch.equal(fresh[:, 0], torch.zeros(1, 24))
    assert not torch.equal(fresh[:, 1], fresh[:, 2])
    assert fresh.requires_grad


@pytest.mark.parametrize("taps", ["blocks", "embed"])
def test_where_the_skips_are_tapped(taps):
    model, image = build(taps=taps), torch.randn(1, 3, 32, 32)
    embedded = model.patch_embed1_query(image)
    stage1 = model.blocks1(embedded)
    embedded2 = model.patch_embed2(stage1)
    expected = (stage1, model.blocks2(embedded2)) if taps == "blocks" else (embedded, embedded2)
    query = model.encode_query(image)
    assert torch.equal(query.f4, expected[0])
    assert torch.equal(query.f8, expected[1])
    assert torch.equal(query.tokens, build().encode_query(image).tokens)


def test_other_strides():
    model = build(strides=(2, 2, 2))
    assert model.pos_embed.shape == (1, 17, 24)
    outputs = model(**clip(size=(32, 40)))
    assert [outputs[name].shape[3:] for name in ("f4", "f8", "f16")] == [(16, 20), (8, 10), (4, 5)]


def test_initial_weights():
    torch.manual_seed(0)
    model = ConvMAEMemoryBackbone(ConvMAEMemoryConfig(**{**SMALL, "widths": (32, 48, 96), "temperature": "learned"}))
    linear = model.blocks3[0].mlp.fc1
    assert 0.018 < linear.weight.std() < 0.022
    assert not linear.bias.any()
    assert model.patch_embed2.proj.bias.any()  # torch's default
    assert not model.blocks3[0].log_scale.any()
    assert (model.norm.eps, model.blocks3[0].norm1.eps, model.blocks1[0].norm1.eps) == (1e-6, 1e-6, 1e-5)


def test_initial_weights_that_begin_by_comparing_tokens():
    options = {**SMALL, "widths": (32, 48, 96), "init": "matching"}
    torch.manual_seed(0)
    model = ConvMAEMemoryBackbone(ConvMAEMemoryConfig(**options))
    first = model.blocks3[0]
    assert first.mlp.fc1.weight.std().item() == pytest.approx(0.02 * 8**0.5, rel=0.1)  # 768 / 96 = 8
    assert first.mlp.fc2.weight.std().item() == pytest.approx(0.02 * 2**0.5, rel=0.1)
    queries, keys, values = first.attn.qkv.weight.chunk(3)
    assert torch.equal(queries, keys)
    assert not torch.equal(queries, values)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_weight(read, training):
    model = build(read).train(training)
    outputs = model(**clip())
    sum((output * torch.randn(output.shape)).sum() for output in outputs.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (12, 16)}, r"widths must be three integers >= 1, one a stage, got \(12, 16\)"),
        ({"layers": [1, 0, 3]}, r"layers must be three integers >= 1, one a stage, got \[1, 0, 3\]"),
        ({"strides": 4}, "strides must be three integers >= 1, one a stage, got 4"),
        ({"widths": (12, 16, 25)}, r"widths\[2\] must be a multiple of 4 and of its 2 heads, got 25: try 24"),
        ({"image_size": 40}, "image_size must be a multiple of the total stride 16, got 40: try 32"),
        ({"taps": "norm"}, "taps must be one of blocks, embed, got 'norm'"),
        ({"memory_read": "sparse"}, "memory_read must be one of dense, topk, shared-subset, flex, got 'sparse'"),
        ({"memory_read": "topk", "topk_scope": "all"}, "topk must be an integer >= 1, got None"),
        ({"memory_read": "topk", "topk": 3}, "topk_scope must be one of all, each, got None"),
        ({"topk_layers": "first"}, "topk_layers must be one of all, half, last, none, got 'first'"),
        ({"topk_training": 1}, "topk_training must be true or false, got 1"),
        ({"implementation": "sort"}, "implementation must be one of scatter, mask, gather, bag, got 'sort'"),
        ({"subset_ratio": 0}, "subset_ratio must be a number above 0 and at most 1, got 0"),
        ({"subset_ratio": True}, "subset_ratio must be a number above 0 and at most 1, got True"),
        ({"temperature": 2.0}, "temperature must be one of fixed, learned, got 2.0"),
    ],
)
def test_options_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ConvMAEMemoryConfig(**{**SMALL, **change})


def test_a_configuration_can_be_written_down_and_read_again():
    for options in READS.values():
        config = ConvMAEMemoryConfig(**{**SMALL, **options, "widths": [12, 16, 24]})
        assert ConvMAEMemoryConfig(**dataclasses.asdict(config)) == config
        assert isinstance(hash(config), int)


def test_pictures_that_do_not_divide_are_refused():
    with pytest.raises(
        ValueError, match=r"\[B, 3, H, W\] with H and W multiples of 16, got \[1, 3, 32, 40\]: pad them"
    ):
        build().encode_query(torch.zeros(1, 3, 32, 40))


def million(model, prefix=""):
    return sum(value.numel() for name, value in model.named_parameters() if name.startswith(prefix)) / 1e6


def test_published_sizes():
    with torch.device("meta"):
        base = ConvMAEMemoryBackbone(PRESETS["paper"])
        large = ConvMAEMemoryBackbone(ConvMAEMemoryConfig(**SIZES["large"]))
    assert [round(million(base, f"blocks{stage}"), 2) for stage in (1, 2, 3)] == [1.33, 2.98, 77.97]
    assert round(million(base), 1) == 84.9
    assert base.pos_embed.shape == (1, 577, 768)
    assert large.pos_embed.shape == (1, 577, 1024)
    assert (len(large.blocks3), large.blocks3[0].attn.heads) == (20, 16)
    assert million(ConvMAEMemoryBackbone(PRESETS["tiny"])) < 1


def test_a_temperature_is_a_factor_of_its_heads_logits():
    model = build("learned")
    factors = torch.tensor([0.3, -0.7])
    with torch.no_grad():
        model.blocks3[0].log_scale.copy_(factors)
    queries = torch.randn(2, 2, 5, 12)
    torch.testing.assert_close(model.blocks3[0].sharpen(queries), queries * factors.exp().view(2, 1, 1))


# --- FLOPs ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("read", READS)
def test_flops_agree_to_the_digit(read):
    options = {**SMALL, **READS[read], "topk_layers": "half"}
    batch = clip(frames=2)
    if read == "flex":  # more than one block of a frame
        options, batch = {**options, "strides": (2, 2, 2)}, clip(1, 2, 1, size=(96, 96))
    config = ConvMAEMemoryConfig(**options)
    report = triangulate(lambda: ConvMAEMemoryBackbone(config), batch, list(batch))
    assert len(set(report.counters.values())) == 1, report.counters


def test_flops_of_the_encoder_agree_to_the_digit():
    batch = {"image": torch.zeros(2, 3, 48, 64)}
    report = triangulate(lambda: ConvMAE(ConvMAEConfig(**SMALL)), batch, ["image"])
    assert len(set(report.counters.values())) == 1, report.counters


def test_flops_at_the_published_size():
    """The sheet's figures at 384 px: trunk 42, write 15 without it, read with four frames 187.9 with the trunk."""
    with torch.device("meta"):
        model = ConvMAEMemoryBackbone(PRESETS["paper"])
    trunk, read = model.flops_query(384, 384), model.flops_read(384, 384, 4, 1)
    assert round((trunk + read) / 1e9, 1) == 187.9
    assert round(trunk / 1e9) == 42
    more = model.flops_read(384, 384, 8, 1) - read
    assert round(more / 1e9, 1) == 44.8  # 232.7 - 187.9
