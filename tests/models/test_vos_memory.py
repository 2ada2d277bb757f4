"""Video object segmentation with a memory: what is read, what is kept, and that nothing else matters."""

import dataclasses
import hashlib

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from bench.engine.flops import triangulate
from models import vos_memory
from models.convmae import ConvMAE, ConvMAEConfig
from models.layers.mask_decoder import aggregate
from models.vos_memory import PRESETS, VOSMemory, VOSMemoryConfig
from tests.models.helpers import randomise

SMALL = {
    "image_size": 16,
    "strides": (2, 2, 2),
    "widths": (8, 12, 16),
    "layers": (1, 1, 2),
    "heads": 2,
    "decoder_width": 8,
}
FIELDS = ("frames", "first_masks", "start")
TOPK = {"memory_read": "topk", "topk": 3, "topk_scope": "all"}


def build(**options):
    """A small model in evaluation mode, with weights that all matter."""
    return randomise(VOSMemory(VOSMemoryConfig(**{**SMALL, **options}))).eval()


def clips(start=((0, 0, -1), (0, 2, 3)), frames=5, size=(16, 16), seed=0):
    """Random clips whose objects start in the given frames."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.tensor(start)
    samples, objects = start.shape
    owner = torch.randint(0, objects + 1, (samples, 1, *size), generator=generator)
    masks = (owner == torch.arange(1, objects + 1).view(1, -1, 1, 1)) & (start >= 0)[:, :, None, None]
    pictures = torch.randn(samples, frames, 3, *size, generator=generator)
    return {"frames": pictures, "first_masks": masks.float(), "start": start}


def logits_of(model, batch):
    with torch.no_grad():
        return model(**batch)["logits"]


def streamed(model, batch, **options):
    """The same, frame by frame, and the stream."""
    stream, found = model.stream(**options), []
    for number, frame in enumerate(batch["frames"].unbind(1)):
        given = batch["start"] == number
        masks = batch["first_masks"] if number == 0 or given.any() else None
        found.append(stream.step(frame, masks, None if masks is None else given))
    return torch.stack(found, dim=1), stream


POLICIES = {
    "default": {},
    "bounded": {"memory_every": 1, "max_memory_frames": 2},
    "first and last": {"max_memory_frames": 1},
    "every second": {"memory_every": 2, "include_last": False},
    "usage": {"memory_every": 1, "max_memory_frames": 3, "include_last": False, "eviction": "usage"},
    "usage and last": {"memory_every": 2, "max_memory_frames": 2, "eviction": "usage", **TOPK},
}


# --- what comes out ------------------------------------------------------------------------------------------------


def test_a_plain_rollout_gives_the_same():
    """Frame by frame on the backbone's own forward pass, with whole pictures in memory instead of keys and values."""
    model, batch = build(memory_every=2), clips(((0, 0), (0, 0)))
    frames, masks = batch["frames"], batch["first_masks"]
    live = torch.ones(2, 2, dtype=torch.bool)
    soft, expected = [masks], []
    for number, memory in ((1, [0]), (2, [0, 1]), (3, [0, 2]), (4, [0, 2, 3])):
        pictures = torch.stack([frames[:, kept] for kept in memory], dim=1)
        features = model.convmae(frames[:, number], pictures, torch.stack([soft[kept] for kept in memory], dim=1))
        own = model.decoder(features["f16"], features["f8"][:, 0], features["f4"][:, 0], (16, 16))
        expected.append(aggregate(own, live))
        soft.append(expected[-1].softmax(1)[:, 1:])
    with torch.no_grad():
        found = model(**batch)["logits"]
    torch.testing.assert_close(found[:, 1:], torch.stack(expected, dim=1), atol=1e-3, rtol=1e-3)


def test_training_reads_the_first_and_the_most_recent_frames():
    batch = clips(((0, 0), (0, 0)))
    for count, policy in ((1, {"max_memory_frames": 1, "include_last": False}), (2, {"max_memory_frames": 1}),
                          (3, {"memory_every": 1, "max_memory_frames": 3, "include_last": False})):  # fmt: skip
        model = build(train_memory_frames=count, **policy)
        assert torch.equal(logits_of(model.train(), batch), logits_of(model.eval(), batch)), count


def test_given_masks_stand_and_slots_without_an_object_are_empty():
    batch = clips()
    probabilities = logits_of(build(), batch).softmax(2)
    assert probabilities.isfinite().all()
    for sample, starts in enumerate(batch["start"].tolist()):
        for slot, start in enumerate(starts):
            own = probabilities[sample, :, 1 + slot]
            assert own[: start if start >= 0 else None].amax() < 1e-6 if start != 0 else True
            if start >= 0:
                assert (own[start] - batch["first_masks"][sample, slot]).abs().max() < 1e-5
                assert own[start + 1 :].max() > 1e-4


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("training", [False, True])
def test_later_frames_change_nothing(policy, training):
    model, batch, other = build(**POLICIES[policy]).train(training), clips(), clips(seed=1)
    plain = logits_of(model, batch)
    for number in range(1, 5):
        mixed = {**batch, "frames": torch.cat([batch["frames"][:, :number], other["frames"][:, number:]], dim=1)}
        found = logits_of(model, mixed)
        assert torch.equal(found[:, :number], plain[:, :number])
        assert (found[:, number] - plain[:, number]).abs().max() > 1e-4


@pytest.mark.parametrize("policy", POLICIES)
def test_a_stream_gives_what_forward_gives(policy):
    model, batch = build(**POLICIES[policy]), clips()
    found, stream = streamed(model, batch)
    assert torch.equal(found, logits_of(model, batch))
    assert stream.usage is None


@pytest.mark.parametrize("policy", ["default", "usage"])
def test_order_of_objects_does_not_matter(policy):
    model, batch = build(**POLICIES[policy]), clips()
    order = torch.tensor([2, 0, 1])
    permuted = {**batch, "first_masks": batch["first_masks"][:, order], "start": batch["start"][:, order]}
    plain = logits_of(model, batch)
    expected = torch.cat([plain[:, :, :1], plain[:, :, 1:][:, :, order]], dim=2)
    torch.testing.assert_close(logits_of(model, permuted), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("policy", ["default", "every second", "usage"])
@pytest.mark.parametrize("training", [False, True])
def test_empty_slots_change_nothing(policy, training):
    model, batch = build(**POLICIES[policy]).train(training), clips()
    wider = {
        **batch,
        "first_masks": F.pad(batch["first_masks"], (0, 0, 0, 0, 0, 1)),
        "start": F.pad(batch["start"], (0, 1), value=-1),
    }
    torch.testing.assert_close(logits_of(model, wider)[:, :, :4], logits_of(model, batch), atol=1e-3, rtol=1e-3)


def test_a_clip_without_objects_is_background():
    model, batch = build(), clips(((-1, -1), (0, -1)))
    assert logits_of(model, batch)[0].softmax(1)[:, 0].min() > 1 - 1e-5


@pytest.mark.parametrize("policy", POLICIES)
def test_clips_of_a_batch_do_not_matter_to_one_another(policy):
    model, batch = build(**POLICIES[policy]), clips()
    for sample in range(2):
        alone = {name: value[sample : sample + 1] for name, value in batch.items()}
        torch.testing.assert_close(logits_of(model, alone)[0], logits_of(model, batch)[sample], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("training", [False, True])
def test_an_object_that_starts_later_is_as_if_the_clip_began_there(policy, training):
    """An only object's frames are those of a clip without the frames before, wherever the same numbers are read."""
    model, batch = build(**POLICIES[policy]).train(training), clips(((1,), (1,)), frames=3)
    later = {"frames": batch["frames"][:, 1:], "first_masks": batch["first_masks"], "start": batch["start"] - 1}
    alone = logits_of(model, later)
    found = logits_of(model, batch)[:, 1:]
    assert torch.equal(found[:, 0], alone[:, 0])
    # Frame 1 stands twice in the memory of frame 2, in the place of frame 0 too; a read of one frame is the same.
    same = model.policy.frames_read(2) == 1
    assert torch.allclose(found[:, 1], alone[:, 1], atol=1e-4) == same


def test_a_new_object_takes_part_in_the_others_memory():
    model, batch = build(), clips(((0, 2),), frames=4)
    without = {**batch, "start": torch.tensor([[0, -1]])}
    found, plain = logits_of(model, batch), logits_of(model, without)
    assert torch.equal(found[:, :2], plain[:, :2])
    assert (found[:, 3, 1] - plain[:, 3, 1]).abs().max() > 1e-4


def test_any_size_is_padded_to_whole_tokens():
    model, batch = build(), clips(size=(13, 18))
    found = logits_of(model, batch)
    assert found.shape == (2, 5, 4, 13, 18)
    padded = {**batch, "frames": F.pad(batch["frames"], (0, 6, 0, 3)), "first_masks": F.pad(batch["first_masks"], (0, 6, 0, 3))}  # fmt: skip
    assert torch.equal(found, logits_of(model, padded)[..., :13, :18])


def test_deterministic_also_in_training_but_for_the_random_choice():
    batch = clips(frames=6)
    model = build().train()
    assert torch.equal(logits_of(model, batch), logits_of(model, batch))
    model = build(train_memory="random").train()
    found = []
    for seed in (0, 0, 1, 2, 3):
        torch.manual_seed(seed)
        found.append(logits_of(model, batch))
    assert torch.equal(found[0], found[1])
    assert any(not torch.equal(found[0], other) for other in found[2:])
    assert torch.equal(found[0][:, :3], found[2][:, :3])  # so far there is nothing to choose from


def test_dense_in_training_and_topk_at_inference():
    batch = clips(((0, 0), (0, 0)))
    policy = {"memory_every": 1, "max_memory_frames": 2, "include_last": False}
    sparse, mixed, dense = build(**TOPK, **policy), build(**TOPK, topk_training=False, **policy), build(**policy)
    assert torch.equal(logits_of(mixed, batch), logits_of(sparse, batch))
    for model in (sparse, mixed, dense):
        model.train()
    assert torch.equal(logits_of(mixed, batch), logits_of(dense, batch))
    assert not torch.allclose(logits_of(mixed, batch), logits_of(sparse, batch), atol=1e-3)


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": "learned", "taps": "embed"}, {"train_memory": "random"}, {**TOPK, "topk_layers": "half"}],
)
def test_gradients_reach_every_weight(options):
    model, batch = build(**options).train(), clips(frames=3)
    model(**batch)["logits"].softmax(2)[:, 1:].square().mean().backward()
    idle = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not idle
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("read_frames", [1, 2])
def test_gradients_flow_through_the_masks_that_are_written(monkeypatch, read_frames):
    made = []  # logits of every frame, before its masks are written
    monkeypatch.setattr(vos_memory, "aggregate", lambda *inputs: made.append(aggregate(*inputs)) or made[-1])
    model, batch = build(train_memory_frames=read_frames).train(), clips(((0,), (0,)), frames=3)
    last = model(**batch)["logits"][:, -1]
    (gradient,) = torch.autograd.grad(last.square().mean(), made[1])
    assert gradient.any() == (read_frames == 2)  # otherwise frame 1 is not read


@pytest.mark.parametrize("options", [{}, TOPK])
def test_finite_in_bfloat16(options):
    model, batch = build(**options).train(), clips()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(**batch)["logits"]
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    logits.softmax(2).square().mean().backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("options", [{}, POLICIES["usage"]])
def test_runs_with_weights_in_bfloat16(options):
    model, batch = build(**options), clips()
    exact = logits_of(model, batch).softmax(2)
    found = logits_of(model.bfloat16(), {**batch, "frames": batch["frames"].bfloat16()})
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert (found.softmax(2) - exact).abs().mean() < 0.02


def test_only_frames_that_are_read_are_written(monkeypatch):
    written = []
    for training, policy, expected in (
        (True, {}, 4),
        (True, {"train_memory_frames": 1}, 1),
        (False, {}, 4),
        (False, {"memory_every": 2, "include_last": False}, 2),
        (False, {"memory_every": 2, "max_memory_frames": 1, "include_last": False}, 1),
    ):
        model = build(**policy).train(training)
        write = model.convmae.write
        monkeypatch.setattr(model.convmae, "write", lambda *inputs, write=write: written.append(1) or write(*inputs))
        written.clear()
        logits_of(model, clips(((0, -1),)))
        assert len(written) == expected, policy
        written.clear()
        logits_of(model, clips(((0, 3),)))
        assert len(written) == expected + (expected < 4), policy  # the frame of the start is written too


# --- streams -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["default", "bounded", "every second", "usage", "usage and last"])
def test_usage_and_the_frames_that_it_belongs_to(policy):
    model, batch = build(**POLICIES[policy]), clips(frames=8)
    stream = model.stream(usage=True)
    assert stream.memory_frames == ()
    assert stream.query_tokens == 0
    for number, frame in enumerate(batch["frames"].unbind(1)):
        given = batch["start"] == number
        stream.step(frame, batch["first_masks"], given)
        frames = stream.clip_memory_frames
        assert all(len(numbers) == model.policy.frames_read(number) for numbers in frames)
        if number == 0:
            assert stream.usage is None
            continue
        assert stream.usage.shape == (2, 2, 3, len(frames[0]))
        started = (batch["start"] >= 0) & (batch["start"] < number)
        total = stream.usage.sum(-1)
        assert (total[:, started] > 0).all()
        assert stream.query_tokens == 4
        assert (total[:, started] < 4).all()  # the rest is on the query frame itself
        assert not total[:, ~started].any()


def test_memory_frames_of_clips_that_differ_are_asked_for_one_by_one():
    model, batch = build(**POLICIES["usage"]), clips(((0,),) * 6, frames=8)
    _, stream = streamed(model, batch)
    assert len(set(stream.clip_memory_frames)) > 1
    with pytest.raises(ValueError, match="memory_frames differ from clip to clip with eviction 'usage'"):
        _ = stream.memory_frames
    alone = {name: value[:1] for name, value in batch.items()}
    assert streamed(model, alone)[1].memory_frames == stream.clip_memory_frames[0]


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("slot", [0, 1])
def test_eviction_follows_what_was_read(monkeypatch, layer, slot):
    """With read-outs that favour one frame, be it in one block and for one object, this frame stays."""
    batch = clips(((0, 0),), frames=8)
    for favourite in (1, 2, 3):
        model = build(**POLICIES["usage"])
        stream = model.stream()
        read = model.convmae.read

        def biased(query, memory, frames, *, usage, read=read, stream=stream, favourite=favourite):
            result = read(query, memory, frames, usage=usage)
            numbers = torch.tensor(stream.memory_frames)
            usage = torch.full_like(result.usage, 0.1)
            usage[layer, slot, numbers == favourite] = 3.0
            return result._replace(usage=usage)

        monkeypatch.setattr(model.convmae, "read", biased)
        for number, frame in enumerate(batch["frames"].unbind(1)):
            stream.step(frame, batch["first_masks"] if number == 0 else None)
        assert stream.memory_frames == (0, favourite, 6)


def test_a_stream_keeps_keys_and_values_alone():
    model, batch = build(memory_every=1, max_memory_frames=3), clips(((0, 0),), frames=7)
    _, stream = streamed(model, batch)
    entries = stream._bank.read()
    held = sum(tensor.numel() * tensor.element_size() for entry in entries for tensor in entry)
    assert len(entries) == 3
    assert held == model.memory_bytes(16, 16, 3, 2)
    assert model.memory_bytes(13, 10, 3, 2, 2) == held // 2
    assert not any(tensor.requires_grad for entry in entries for tensor in entry)


def test_what_starts_is_told_by_the_masks_where_nothing_else_tells():
    model, batch = build(), clips(((0, -1, 0),), frames=2)
    first, second = model.stream(), model.stream()
    for number, frame in enumerate(batch["frames"].unbind(1)):
        masks = batch["first_masks"] if number == 0 else None
        told = first.step(frame, masks, None if masks is None else batch["start"] == number)
        assert torch.equal(second.step(frame, masks), told)


# --- cost ----------------------------------------------------------------------------------------------------------


def test_closed_form_equals_the_counters():
    report = triangulate(lambda: VOSMemory(VOSMemoryConfig(**SMALL)), clips(frames=3), FIELDS, require_closed_form=True)
    assert report.counters["closed_form"] == report.counters["torch"] == report.counters["fvcore"]


READS = {
    "dense": {},
    "shared-subset": {"memory_read": "shared-subset", "subset_ratio": 0.4},
    **{f"topk {name}": {**TOPK, "implementation": name} for name in ("scatter", "mask", "gather", "bag")},
}


@pytest.mark.parametrize("frames", [2, 5])
@pytest.mark.parametrize("read", ["dense", "shared-subset", "topk mask"])
def test_closed_form_counts_the_usage_that_eviction_needs(read, frames):
    config = VOSMemoryConfig(**{**SMALL, **READS[read], **POLICIES["usage"]})
    report = triangulate(lambda: VOSMemory(config), clips(frames=frames), FIELDS, require_closed_form=True)
    assert report.counters["closed_form"] == report.counters["torch"] == report.counters["fvcore"]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {**POLICIES["every second"], "strides": (4, 2, 1)},
        TOPK,
        {"train_memory": "random"},
        {"eviction": "usage"},  # nothing is ever evicted
        *({**POLICIES["usage"], **read} for read in READS.values()),
    ],
)
def test_closed_form_counts_either_mode(options, training):
    model, batch = build(**options).train(training), clips(((0, 0), (0, -1)), frames=6, size=(13, 24))
    with FlopCounterMode(display=False) as counter:
        model(**batch)
    assert model.flops(batch) == counter.get_total_flops()


@pytest.mark.parametrize("read", [*READS, "flex"])
def test_closed_form_of_a_step_counts_the_usage_that_is_asked_for(read):
    options = READS.get(read, {"memory_read": "flex", "image_size": 96})
    with torch.device("meta"):  # where flex compiles nothing
        model = VOSMemory(VOSMemoryConfig(**{**SMALL, "memory_every": 1, **options})).eval()
        stream = model.stream(usage=True)
        stream.step(torch.empty(1, 3, 96, 96), torch.empty(1, 2, 96, 96))
    for frames in (1, 2, 3):
        with FlopCounterMode(display=False) as counter:
            stream.step(torch.empty(1, 3, 96, 96, device="meta"))
        told = [model.flops_frame(96, 96, frames, 2, usage=usage) for usage in (True, False)]
        assert counter.get_total_flops() == told[0]
        assert (told[0] > told[1]) == (read in ("dense", "shared-subset", "topk mask", "flex"))


def test_flops_of_a_frame_add_up_to_those_of_a_clip():
    model = build(memory_every=1)
    batch = clips(((0, 0),), frames=4, size=(16, 24))
    assert sum(model.flops_frame(16, 24, frames, 2) for frames in (1, 2, 3)) == model.flops(batch)
    assert model.flops_frame(11, 20, 2, 2) == model.flops_frame(16, 24, 2, 2)


def test_presets():
    assert list(PRESETS) == ["tiny", "small", "paper"]
    with torch.device("meta"):
        sizes = {name: sum(p.numel() for p in VOSMemory(config).parameters()) / 1e6 for name, config in PRESETS.items()}
    assert sizes["tiny"] < 1.5
    assert round(sizes["paper"], 1) == 93.5
    assert PRESETS["paper"].image_size == 384


# --- weights -------------------------------------------------------------------------------------------------------


def backbone_options(model):
    return {name: getattr(model.config, name) for name in ("image_size", "strides", "widths", "layers", "heads")}


def test_a_backbone_is_loaded_and_the_decoder_left():
    source, model = build(), randomise(VOSMemory(VOSMemoryConfig(**SMALL)), seed=1)
    before = {name: value.clone() for name, value in model.decoder.state_dict().items()}
    model.load_backbone(source.state_dict())
    assert all(
        torch.equal(value, model.convmae.state_dict()[name]) for name, value in source.convmae.state_dict().items()
    )
    assert all(torch.equal(value, model.decoder.state_dict()[name]) for name, value in before.items())


def test_an_encoder_alone_starts_both_embeddings():
    encoder = randomise(ConvMAE(ConvMAEConfig(**backbone_options(build()))))
    model = build()
    torch.manual_seed(5)
    model.load_backbone({"model": encoder.state_dict()})
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    weight = encoder.patch_embed1.proj.weight
    assert torch.equal(model.convmae.patch_embed1_query.proj.weight, weight)
    assert torch.equal(model.convmae.patch_embed1_memory.proj.weight[:, :3], weight)
    assert torch.equal(model.convmae.blocks3[0].attn.qkv.weight, encoder.blocks3[0].attn.qkv.weight)


def test_a_backbone_that_does_not_fit_is_told():
    state = build().state_dict()
    del state["convmae.norm.weight"]
    with pytest.raises(ValueError, match=r"missing key 'norm.weight'"):
        build().load_backbone(state)


def test_a_weight_file_is_an_option_and_is_recorded(tmp_path):
    source, path = build(), tmp_path / "backbone.pth"
    torch.save({"model": source.state_dict()}, path)
    torch.manual_seed(0)
    plain = VOSMemory(VOSMemoryConfig(**SMALL))
    torch.manual_seed(0)
    model = VOSMemory(VOSMemoryConfig(**SMALL, backbone_weights=str(path)))
    assert torch.equal(model.convmae.norm.weight, source.convmae.norm.weight)
    assert torch.equal(model.decoder.pred.weight, plain.decoder.pred.weight)
    (part,) = model.pretrained_parts()
    assert part["name"] == "convmae"
    assert part["source"] == "backbone.pth"
    assert part["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert part["parameters"] == sum(weight.numel() for weight in model.convmae.parameters())
    assert plain.pretrained_parts() == []
    with torch.device("meta"):
        VOSMemory(VOSMemoryConfig(**SMALL, backbone_weights="elsewhere.pth"))


def test_weight_files_that_cannot_be_read_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"backbone_weights must be a file, got 'nowhere\.pth': mend the path"):
        VOSMemory(VOSMemoryConfig(**SMALL, backbone_weights="nowhere.pth"))
    path = tmp_path / "text.pth"
    path.write_text("no weights")
    with pytest.raises(ValueError, match=r"text.pth cannot be read \(\w+\): give a .pt or .pth file"):
        VOSMemory(VOSMemoryConfig(**SMALL, backbone_weights=str(path)))


# --- configuration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_width": 0}, "decoder_width must be an integer >= 1, got 0"),
        ({"memory_every": 0}, "memory_every must be an integer >= 1, got 0"),
        ({"max_memory_frames": 0}, "max_memory_frames must be an integer >= 1, got 0"),
        ({"train_memory_frames": None}, "train_memory_frames must be an integer >= 1, got None"),
        ({"train_memory": "last"}, "train_memory must be one of recent, random, got 'last'"),
        ({"include_last": 1}, "include_last must be true or false, got 1"),
        ({"eviction": "lru"}, "eviction must be one of fifo, usage, got 'lru'"),
        ({"memory_read": "topk"}, "topk must be an integer >= 1, got None"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VOSMemoryConfig(**{**SMALL, **options})


def test_a_configuration_can_be_written_down_and_read_again():
    config = VOSMemoryConfig(**{**SMALL, **TOPK, **POLICIES["usage"]})
    assert VOSMemoryConfig(**dataclasses.asdict(config)) == config


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, b: m(**{**b, "frames": b["frames"][:, 0]}), r"frames must be \[B, F, 3, H, W\], got \[2, 3, 16, 16\]"),
        (lambda m, b: m(**{**b, "start": b["start"][:, :1]}), r"start must be \[B, O\] = \[2, 3\], got \[2, 1\]"),
        (lambda m, b: m(**{**b, "first_masks": b["first_masks"][..., :8]}), r"masks must be \[B, O, H, W\] = \[2, 3, 16, 16\]"),
        (lambda m, b: m.stream().step(b["frames"][:, 0]), "masks must be given in frame 0, got None"),
        (lambda m, b: m.stream().step(b["frames"]), r"frame must be \[B, 3, H, W\], got \[2, 5, 3, 16, 16\]"),
    ],
)  # fmt: skip
def test_wrong_shapes_are_told(call, message):
    with pytest.raises(ValueError, match=message):
        call(build(), clips())


def test_frames_of_another_size_need_another_stream():
    model, batch = build(), clips()
    stream = model.stream()
    stream.step(batch["frames"][:, 0], batch["first_masks"])
    with pytest.raises(ValueError, match="frame must be as large as the frames before"):
        stream.step(batch["frames"][:, 1, :, :8, :8])
