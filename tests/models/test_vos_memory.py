"""Video object segmentation with a memory: what is read, what is trained, and that nothing else matters."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from models import vos_memory
from models.layers.mask_decoder import aggregate
from models.vos_memory import VOSMemoryConfig
from tests.models.small_vos import POLICIES, SMALL, TOPK, build, clips, logits_of, streamed

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
