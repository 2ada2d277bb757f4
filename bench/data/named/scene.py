"""Pictures of named things: `make_picture(spec, split, index) -> Picture`.

Sizes, places, poses, shades and light are random, so that a name is not a colour of pixels.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.labelled import VOID
from bench.data.named.spec import GROUPS_OF, NamedSceneSpec
from bench.data.named.words import (
    COLOURS,
    LEFT_OUT_COLOURS,
    LEFT_OUT_SHAPES,
    LEFT_OUT_TEXTURES,
    SHAPES,
    STUFF,
    TEXTURES,
    Hsv,
    Thing,
)
from bench.data.scenes.render import render
from bench.data.scenes.scene import Floor, Scene, SceneObject, sample_cameras, sample_light, standing_pose
from bench.data.scenes.shapes import OOD_SHAPES
from bench.data.scenes.shapes import SHAPES as PLACEMENTS
from bench.data.scenes.textures import Texture

THINGS = (4, 8)
SIZE = (0.36, 0.56)
"""Radius in world units."""
SPREAD = 1.5
"""Things stand within this distance of the middle."""
ELEVATION_DEGREES = (14.0, 40.0)
RADIUS = (3.0, 3.9)
"""Distance of the camera from the middle."""
GROUNDS = ("solid", "noise", "gradient")
"""Patterns of the ground: none that makes a thing striped, spotted or checkered."""
HORIZON = (20.0, 30.0)
"""Where the ground dissolves: so far away that what is called ground looks like it."""
SHADE = (0.02, 0.1, 0.1)
"""How far hue, saturation and value of a thing may be from those of its colour."""
SMALLEST_AREA = 16
"""A thing of which fewer pixels are seen is void."""


@dataclass(frozen=True)
class Picture:
    """One picture and what is in it."""

    rgb: NDArray[np.uint8]
    """Display values [H, W, 3]."""
    labels: NDArray[np.uint16]
    """Position in the vocabulary of the split at the pixel's centre, or `VOID` [H, W]."""


def make_picture(spec: NamedSceneSpec, split: str, index: int) -> Picture:
    """Draw and render picture `index` of `split`."""
    rng = spec.generator(split, index)
    things, scene = sample_scene(rng, spec, split)
    cameras = sample_cameras(rng, 1, spec.image_size, elevation_degrees=ELEVATION_DEGREES, radius=RADIUS)
    views = render(scene, cameras, spec.supersampling)
    rgb, instance = views.rgb[0], views.instance[0]
    position = {name: label for label, name in enumerate(spec.vocabulary(split).names)}
    ground, sky = (position[name] for name in STUFF)
    areas = np.bincount(instance.ravel(), minlength=2 + len(things))[2:]
    seen = [position[t.name] if area >= SMALLEST_AREA else VOID for t, area in zip(things, areas, strict=True)]
    return Picture(rgb, np.array([sky, ground, *seen], np.uint16)[instance])


def sample_scene(rng: np.random.Generator, spec: NamedSceneSpec, split: str) -> tuple[list[Thing], Scene]:
    """Draw the things of a picture, object k of the scene being thing k, and the ground, the light and the sky."""
    things, objects = _sample_objects(rng, spec, split)
    hue, grey = rng.uniform(0.55, 0.62), rng.uniform(0.4, 0.65)
    texture = Texture(
        str(rng.choice(GROUNDS)),
        dark=_display((rng.random(), 0.04, grey * rng.uniform(0.75, 0.95))),
        light=_display((rng.random(), 0.04, grey)),
        variant=int(rng.integers(3)),
    )
    scene = Scene(
        objects,
        Floor(texture, tile=rng.uniform(1.6, 2.4), fade=HORIZON),
        sample_light(rng),
        horizon=_display((hue, rng.uniform(0.08, 0.2), rng.uniform(0.85, 0.97))),
        zenith=_display((hue, rng.uniform(0.3, 0.55), rng.uniform(0.75, 0.95))),
    )
    return things, scene


def _sample_objects(
    rng: np.random.Generator, spec: NamedSceneSpec, split: str
) -> tuple[list[Thing], tuple[SceneObject, ...]]:
    """Stand things on the ground without overlap; one that finds no room in 30 attempts is left out."""
    names = spec.names()
    pools = [[*names.seen, *names.unseen] if "unseen" in GROUPS_OF[split] else names.seen]
    if "word" in GROUPS_OF[split]:
        pools.append(names.word)
    things, objects = [], []
    discs: list[tuple[NDArray[np.float64], float]] = []
    for number in range(rng.integers(THINGS[0], THINGS[1] + 1)):
        pool = pools[number % len(pools)]
        thing, size = pool[rng.integers(len(pool))], rng.uniform(*SIZE)
        shape = (SHAPES | LEFT_OUT_SHAPES)[thing.shape]
        placements = (PLACEMENTS | OOD_SHAPES)[shape]
        texture, turn, tips_over = _texture(rng, thing), rng.uniform(0, 2 * np.pi), bool(rng.random() < 0.25)
        for _attempt in range(30):
            angle, distance = rng.uniform(0, 2 * np.pi), SPREAD * np.sqrt(rng.random())
            place = distance * np.array([np.cos(angle), np.sin(angle)])
            if all(np.linalg.norm(place - other) > size + radius for other, radius in discs):
                discs.append((place, size))
                pose = standing_pose(placements, place, size, turn, tips_over)
                objects.append(SceneObject(shape, pose, (texture,) * (1 + max(part.material for part in placements))))
                things.append(thing)
                break
    return things, tuple(objects)


def _texture(rng: np.random.Generator, thing: Thing) -> Texture:
    """A pattern of the thing's colour and of nearly black, or, where the colour is none itself, of nearly white."""
    pattern = (TEXTURES | LEFT_OUT_TEXTURES)[thing.texture]
    mean = (COLOURS | LEFT_OUT_COLOURS)[thing.colour]
    shade = rng.uniform(-1, 1, 3) * SHADE
    colour = _display((mean[0] + shade[0], mean[1] + shade[1] * (mean[1] > 0.5), mean[2] + shade[2]))
    pale = bool(rng.random() < 0.5) and thing.colour in COLOURS
    other = _display((rng.random(), 0.04, rng.uniform(0.9, 1.0) if pale else rng.uniform(0.04, 0.14)))
    dark, light = (colour, other) if pattern == "dots" else (other, colour)
    return Texture(pattern, dark, light, variant=int(rng.integers(1, 3)))


def _display(hsv: Hsv) -> tuple[float, float, float]:
    hue, saturation, value = hsv
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
