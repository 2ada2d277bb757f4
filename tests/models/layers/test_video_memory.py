"""Which frames stay in memory and which are read, by hand-made examples."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.layers.video_memory import MemoryBank, MemoryPolicy


class Entry(NamedTuple):
    keys: torch.Tensor
    values: torch.Tensor


def entry(frame, clips=1, objects=1):
    """An entry that says which frame it was made of."""
    return Entry(*(torch.full((2, clips * objects, 1, 1, 1), float(frame)) for _ in range(2)))


def play(policy, frames, usage=None, clips=1):
    """Show frames 0, 1, ... to a bank; the numbers that each frame reads, for the first clip.

    ``usage``: frame number -> attention mass that it receives whenever it is read.
    """
    bank, read = MemoryBank(policy), []
    for frame in range(frames):
        entries = bank.read()
        read.append(tuple(bank.frames[0]) if entries else ())
        assert [int(kept.keys[0, 0]) for kept in entries] == list(read[-1])
        if usage is not None and entries:
            bank.tally(torch.tensor([[float(usage.get(number, 0)) for number in read[-1]]] * clips))
        if policy.writes(frame):
            bank.write(frame, entry(frame, clips), None, clips)
    return read


@pytest.mark.parametrize(
    ("policy", "read"),
    [
        (MemoryPolicy(every=3), [(), (0,), (0, 1), (0, 2), (0, 3), (0, 3, 4), (0, 3, 5), (0, 3, 6)]),
        (MemoryPolicy(every=3, include_last=False), [(), (0,), (0,), (0,), (0, 3), (0, 3), (0, 3), (0, 3, 6)]),
        (MemoryPolicy(every=1, max_frames=3, include_last=False), [(), (0,), (0, 1), (0, 1, 2), (0, 2, 3), (0, 3, 4)]),
        (MemoryPolicy(every=2, max_frames=2), [(), (0,), (0, 1), (0, 2), (0, 2, 3), (0, 4), (0, 4, 5), (0, 6)]),
        (MemoryPolicy(every=2, max_frames=1), [(), (0,), (0, 1), (0, 2), (0, 3)]),
        (MemoryPolicy(every=1, max_frames=1, include_last=False), [(), (0,), (0,), (0,)]),
        (MemoryPolicy(every=1), [(), (0,), (0, 1), (0, 1, 2), (0, 1, 2, 3)]),
    ],
)
def test_which_frames_are_read(policy, read):
    assert play(policy, len(read)) == read


def test_the_frame_that_is_read_least_makes_room():
    policy = MemoryPolicy(every=1, max_frames=3, include_last=False, eviction="usage")
    usage = {0: 0.1, 1: 5, 2: 1, 3: 2, 4: 9}
    assert play(policy, 7, usage) == [(), (0,), (0, 1), (0, 1, 2), (0, 1, 3), (0, 1, 4), (0, 4, 5)]


def test_usage_counts_for_each_time_that_a_frame_was_read():
    # Frame 1 received 6 in three reads, frame 2 received 5 in two: by the sum 2 would go, by the mean 1 goes.
    bank = MemoryBank(MemoryPolicy(every=1, max_frames=3, include_last=False, eviction="usage"))
    bank.write(0, entry(0), None, 1)
    bank.write(1, entry(1), None, 1)
    bank.read()
    bank.tally(torch.tensor([[0.0, 2.0]]))
    bank.write(2, entry(2), None, 1)
    for _ in range(2):
        bank.read()
        bank.tally(torch.tensor([[0.0, 2.0, 2.5]]))
    bank.write(3, entry(3), None, 1)
    bank.read()
    assert bank.frames == [[0, 2, 3]]


def test_clips_of_a_batch_make_room_on_their_own():
    bank = MemoryBank(MemoryPolicy(every=1, max_frames=4, include_last=False, eviction="usage"))
    for frame in range(4):
        bank.write(frame, entry(frame, clips=3, objects=2), None, 3)
    bank.read()
    bank.tally(torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, 3.0, 1.0, 2.0], [0.0, 2.0, 3.0, 1.0]]))
    bank.write(4, entry(4, clips=3, objects=2), None, 3)
    entries = bank.read()
    assert bank.frames == [[0, 2, 3, 4], [0, 1, 3, 4], [0, 1, 2, 4]]
    found = torch.stack([kept.values[1].flatten() for kept in entries], dim=1)  # [B * O, T]
    assert found.tolist() == [numbers for numbers in bank.frames for _ in range(2)]
    # What a frame received moves along with it: the least read are now frames 2, 3 and 1.
    bank.tally(torch.tensor([[0.0, 0.0, 0.0, 9.0]] * 3))
    bank.write(5, entry(5, clips=3, objects=2), None, 3)
    bank.read()
    assert bank.frames == [[0, 3, 4, 5], [0, 1, 4, 5], [0, 2, 4, 5]]


def test_an_object_that_starts_later_takes_the_place_of_what_was_there_before():
    bank = MemoryBank(MemoryPolicy(every=2))
    for frame in range(3):
        bank.write(frame, entry(frame, objects=2), None, 1)
    bank.write(3, entry(3, objects=2), torch.tensor([False, True]), 1)
    entries = bank.read()
    assert bank.frames == [[0, 2, 3]]
    assert torch.stack([kept.keys[0].flatten() for kept in entries], dim=1).tolist() == [[0, 2, 3], [3, 3, 3]]


def test_a_random_choice_always_holds_the_first_frame():
    bank = MemoryBank(MemoryPolicy(every=1, include_last=False, draws=3))
    for frame in range(6):
        bank.write(frame, entry(frame), None, 1)
    torch.manual_seed(0)
    seen = set()
    for _ in range(60):
        bank.read()
        (numbers,) = bank.frames
        assert numbers[0] == 0
        assert numbers == sorted(set(numbers))
        seen.add(tuple(numbers))
    assert len(seen) == 10  # 2 of 5
    assert play(MemoryPolicy(every=1, include_last=False, draws=1), 4) == [(), (0,), (0,), (0,)]


@settings(max_examples=60, deadline=None)
@given(
    every=st.integers(1, 4),
    max_frames=st.none() | st.integers(1, 4),
    include_last=st.booleans(),
    eviction=st.sampled_from(["fifo", "usage"]),
    frames=st.integers(1, 14),
    seed=st.integers(0, 9),
)
def test_memory_is_bounded_and_counted(every, max_frames, include_last, eviction, frames, seed):
    policy = MemoryPolicy(every, max_frames, include_last, eviction)
    masses = torch.rand(frames, generator=torch.Generator().manual_seed(seed)).tolist()
    read = play(policy, frames, dict(enumerate(masses)))
    assert [len(numbers) for numbers in read] == [policy.frames_read(frame) for frame in range(frames)]
    for frame, numbers in enumerate(read[1:], start=1):
        assert numbers[0] == 0
        assert list(numbers) == sorted(set(numbers))
        assert numbers[-1] < frame
        assert not include_last or numbers[-1] == frame - 1
        assert all(policy.keeps(number) for number in numbers if number != frame - 1)
        assert max_frames is None or len(numbers) <= max_frames + include_last
        assert all(policy.writes(number) for number in numbers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be an integer >= 1, got 0"),
        ({"max_frames": 0}, "max_frames must be an integer >= 1, got 0"),
        ({"draws": True}, "draws must be an integer >= 1, got True"),
        ({"include_last": "no"}, "include_last must be true or false, got 'no'"),
        ({"eviction": "lru"}, "eviction must be one of fifo, usage, got 'lru'"),
    ],
)
def test_policies_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MemoryPolicy(**options)
