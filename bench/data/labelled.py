"""What a set of pictures with labelled pixels offers to the task `openvocab`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

VOID = 65535
"""Label of pixels that count for nothing."""

GROUPS = ("seen", "unseen", "word")
"""What training saw of a class: its name; its words, but never together; not even its words."""


@dataclass(frozen=True)
class Vocabulary:
    """The classes of a split. A label is a position in these tuples."""

    names: tuple[str, ...]
    """One a class, all different: "striped red cone"."""
    groups: tuple[str, ...]
    """A name of `GROUPS` for each class."""

    def __post_init__(self) -> None:
        """Raise `ValueError` if the tuples differ in length, a name stands twice or a group is unknown."""
        if len(self.names) != len(self.groups):
            raise ValueError(f"a vocabulary has {len(self.names)} names but {len(self.groups)} groups")
        if len(self.names) > VOID:
            raise ValueError(f"a vocabulary has at most {VOID} names, got {len(self.names)}")
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f"a vocabulary names {twice!r} twice")
        if unknown := [group for group in self.groups if group not in GROUPS]:
            raise ValueError(f"the group of a class must be one of {', '.join(GROUPS)}, got {unknown[0]!r}")


class LabelledImages(Protocol):
    """Pictures, each pixel of which has a class."""

    @property
    def fingerprint(self) -> str:
        """Digest of what was found."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that must stand under a table."""
        ...

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes that labels stand for."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Unique in the split: "scene-00012", or the path of a file."""
        ...

    def image(self, index: int) -> NDArray[np.uint8]:
        """RGB [H, W, 3] of picture `index`."""
        ...

    def labels(self, index: int) -> NDArray[np.uint16]:
        """[H, W] of picture `index`: position in the vocabulary, or `VOID`."""
        ...
