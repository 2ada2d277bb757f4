"""Which frames of a video are kept in memory, and which of them a frame reads.

Frames are counted from 0. What is kept of a frame is an entry: a named tuple of tensors [L, B * O, ...], its keys and
values in every block for every object.

An object that appears in the middle of a video was not in the frames before. Wherever the memory holds such a frame, it
holds the frame of the object's start in its place, for this object alone. So all objects read as many frames, an object's
given mask is never lost, and one clip of a batch does not depend on the others.

Axes: L attention blocks, B clips, O objects, T memory frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from models.layers.config import require_bool, require_choice, require_positive

EVICTIONS = ("fifo", "usage")

Entry = TypeVar("Entry", bound=tuple[Tensor, ...])


@dataclass(frozen=True)
class MemoryPolicy:
    """Frame 0 is always kept; the rest is up to these."""

    every: int = 5
    """Keep frames 0, n, 2n, ..."""
    max_frames: int | None = None
    """Most frames kept, frame 0 among them, a temporary last one not; None: no bound."""
    include_last: bool = True
    """Let a frame read the one before it also where that is not kept."""
    eviction: str = "fifo"
    """Which kept frame, never frame 0, makes room: the oldest (``fifo``), or the one that was read least (``usage``)."""
    draws: int | None = None
    """Read frame 0 and so many others less one, drawn at random (torch's global generator); None reads all."""

    def __post_init__(self) -> None:
        require_positive(self, "every", *(name for name in ("max_frames", "draws") if getattr(self, name) is not None))
        require_bool(self, "include_last")
        require_choice(self, "eviction", EVICTIONS)

    @property
    def needs_usage(self) -> bool:
        """Whether the usage of memory frames decides which of them stay."""
        return self.eviction == "usage" and self.max_frames is not None

    def keeps(self, frame: int) -> bool:
        """Whether ``frame`` stays in memory, for a while at least."""
        return frame == 0 or (frame % self.every == 0 and self.max_frames != 1)

    def writes(self, frame: int) -> bool:
        """Whether any later frame may read ``frame``."""
        return self.include_last or self.keeps(frame)

    def frames_read(self, frame: int) -> int:
        """Number T of memory frames that ``frame`` reads; 0 for frame 0."""
        if frame == 0:
            return 0
        kept = 1 + (0 if self.max_frames == 1 else (frame - 1) // self.every)
        kept = min(kept, self.max_frames or kept)
        found = kept + (self.include_last and not self.keeps(frame - 1))
        return min(found, self.draws or found)


@dataclass
class _Slot(Generic[Entry]):
    """One frame in memory; frames may differ from clip to clip."""

    entry: Entry
    frame: Tensor
    """[B] int64, its number."""
    usage: Tensor
    """[B] fp32, attention mass received so far."""
    reads: Tensor
    """[B] fp32, number of frames that have read it."""

    def where(self, clips: Tensor, other: _Slot[Entry]) -> _Slot[Entry]:
        """The other slot in the chosen clips, bool [B], this one elsewhere."""
        return _Slot(
            _where(clips.repeat_interleave(self.entry[0].shape[1] // len(clips)), other.entry, self.entry),
            torch.where(clips, other.frame, self.frame),
            torch.where(clips, other.usage, self.usage),
            torch.where(clips, other.reads, self.reads),
        )


class MemoryBank(Generic[Entry]):
    """The frames in memory of a batch of clips, under a policy."""

    def __init__(self, policy: MemoryPolicy) -> None:
        self.policy = policy
        self._kept: list[_Slot[Entry]] = []
        self._last: _Slot[Entry] | None = None
        self._read: list[_Slot[Entry]] = []

    def write(self, frame: int, entry: Entry, given: Tensor | None, clips: int) -> None:
        """Take in a frame.

        Args:
            frame: its number, larger than any before.
            entry: what is kept of it.
            given: bool [B * O], the objects that start in it; their entries for earlier frames are replaced. None: none.
            clips: B.
        """
        if given is not None:
            for slot in self._kept:
                slot.entry = _where(given, entry, slot.entry)
        zeros = torch.zeros(clips, device=entry[0].device)
        slot = _Slot(entry, torch.full_like(zeros, frame, dtype=torch.int64), zeros, zeros)
        self._last = None
        if self.policy.keeps(frame):
            self._make_room()
            self._kept.append(slot)
        elif self.policy.include_last:
            self._last = slot

    def read(self) -> list[Entry]:
        """The entries that the next frame reads, oldest first."""
        self._read = [*self._kept, *([] if self._last is None else [self._last])]
        draws = self.policy.draws
        if draws is not None and draws < len(self._read):
            others = sorted((1 + torch.randperm(len(self._read) - 1)[: draws - 1]).tolist())
            self._read = [self._read[slot] for slot in (0, *others)]
        return [slot.entry for slot in self._read]

    @property
    def frames(self) -> list[list[int]]:
        """Numbers of the T frames that were read last, for each of the B clips."""
        if not self._read:
            return []
        numbers: list[list[int]] = torch.stack([slot.frame for slot in self._read], dim=1).tolist()
        return numbers

    def tally(self, usage: Tensor) -> None:
        """Add what the frames that were read last received, [B, T]."""
        for slot, received in zip(self._read, usage.unbind(1), strict=True):
            slot.usage = slot.usage + received
            slot.reads = slot.reads + 1

    def _make_room(self) -> None:
        """Drop a frame, and never frame 0, where the bound is reached."""
        if len(self._kept) != self.policy.max_frames:
            return
        if self.policy.eviction == "fifo":
            self._kept.pop(1)
            return
        received = torch.stack([slot.usage / slot.reads.clamp(min=1) for slot in self._kept[1:]], dim=1)
        dropped = 1 + received.argmin(dim=1)  # [B]
        for place in range(1, len(self._kept) - 1):
            self._kept[place] = self._kept[place].where(dropped <= place, self._kept[place + 1])
        self._kept.pop()


def _where(streams: Tensor, chosen: Any, otherwise: Any) -> Any:
    """``chosen`` for the streams of a bool [B * O], ``otherwise`` for the rest, in every tensor of two entries."""
    pairs = zip(chosen, otherwise, strict=True)
    return type(otherwise)(*(torch.where(streams.view(-1, 1, 1, 1), one, other) for one, other in pairs))
