"""A clip frame by frame: what the memory keeps, and which frames stay in it."""

import pytest
import torch

from tests.models.small_vos import POLICIES, build, clips, streamed


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
