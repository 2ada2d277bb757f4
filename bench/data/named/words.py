"""Names composed of words, and which of them training sees.

A thing is called by its texture, its colour and its shape: "striped red cone". Of each kind there are words that training
sees and one that it never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from bench.data.draws import of_name
from bench.data.labelled import Vocabulary

Hsv = tuple[float, float, float]

TEXTURES = {"plain": "solid", "striped": "stripes", "spotted": "dots"}
"""Word -> pattern of `bench.data.scenes.textures`."""
COLOURS: dict[str, Hsv] = {
    "red": (0.0, 0.88, 0.9),
    "yellow": (0.15, 0.88, 0.95),
    "green": (0.33, 0.8, 0.75),
    "blue": (0.63, 0.82, 0.92),
    "orange": (0.075, 0.92, 0.97),
    "purple": (0.76, 0.72, 0.8),
    "cyan": (0.5, 0.8, 0.92),
    "pink": (0.9, 0.6, 0.97),
}
"""Word -> mean hue, saturation and value. Hues are apart, since light and shadow change everything else."""
SHAPES = {
    "sphere": "sphere",
    "box": "box",
    "cone": "cone",
    "torus": "torus",
    "cylinder": "cylinder",
    "table": "table",
    "mushroom": "mushroom",
    "dumbbell": "dumbbell",
}
"""Word -> shape of `bench.data.scenes.shapes`."""

LEFT_OUT_TEXTURES = {"checkered": "checker"}
LEFT_OUT_COLOURS: dict[str, Hsv] = {"white": (0.1, 0.04, 0.98)}
LEFT_OUT_SHAPES = {"arch": "arch"}
"""What no training picture shows: of each kind one word. (White occurs, but only as the second colour of a pattern.)"""

STUFF = ("grey ground", "blue sky")
"""The first two classes of every vocabulary; in every split."""
ONE_IN = 4
"""One composition in so many is unseen."""


@dataclass(frozen=True)
class Thing:
    """What a name says of a thing."""

    texture: str
    colour: str
    shape: str

    @property
    def name(self) -> str:
        """The three words in English order."""
        return f"{self.texture} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Names:
    """All compositions of some words, by what training sees of them."""

    seen: tuple[Thing, ...]
    unseen: tuple[Thing, ...]
    word: tuple[Thing, ...]
    """Those with at least one word that is left out."""

    def vocabulary(self, *groups: str) -> Vocabulary:
        """The stuff and the things of `groups`, in the order given."""
        chosen = [(thing.name, group) for group in groups for thing in getattr(self, group)]
        names = (*STUFF, *(name for name, _ in chosen))
        return Vocabulary(names, (*("seen" for _ in STUFF), *(group for _, group in chosen)))


def compose(textures: int, colours: int, shapes: int, seed: int) -> Names:
    """Compositions of the first so many words of each kind, and of those left out.

    The words of each kind are numbered anew by a shuffle that follows from `seed`, and a composition is unseen where its three
    numbers add up to a multiple of `ONE_IN`. So all words lose about the same share of their names, and every two words of
    different kinds meet in training: what is new at test is all three together.
    """
    rng = np.random.default_rng(int(of_name(f"named/words/{seed}")))
    words = (list(TEXTURES)[:textures], list(COLOURS)[:colours], list(SHAPES)[:shapes])
    numbers = [dict(zip(kind, rng.permutation(len(kind)).tolist(), strict=True)) for kind in words]

    def is_unseen(thing: tuple[str, ...]) -> bool:
        return sum(number[word] for number, word in zip(numbers, thing, strict=True)) % ONE_IN == 0

    known = list(product(*words))
    left_out: tuple[Mapping[str, object], ...] = (LEFT_OUT_TEXTURES, LEFT_OUT_COLOURS, LEFT_OUT_SHAPES)
    everything = product(*([*kind, *more] for kind, more in zip(words, left_out, strict=True)))
    return Names(
        seen=tuple(Thing(*thing) for thing in known if not is_unseen(thing)),
        unseen=tuple(Thing(*thing) for thing in known if is_unseen(thing)),
        word=tuple(Thing(*thing) for thing in everything if thing not in set(known)),
    )
