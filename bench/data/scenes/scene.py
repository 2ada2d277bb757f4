"""A scene and its cameras as plain values, and how they are drawn at random.

A moving scene is a sequence of these values, one for each frame, each with its own object poses; a moving camera is a
`Cameras` of several views. The renderer needs to know nothing about either.

World frame: right-handed, z up, floor at z = 0, objects within about one unit of the origin.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.scenes.shapes import OOD_SHAPES, SHAPES, Placement, primitive
from bench.data.scenes.textures import (
    OOD_PATTERNS,
    OOD_PHOTOGRAPHS,
    PATTERNS,
    PHOTOGRAPHS,
    Colour,
    Texture,
)

Floats = NDArray[np.float64]

FIELD_OF_VIEW_DEGREES = 45.0
AZIMUTH_SPREAD_DEGREES = 60.0
"""The views of a scene lie within this much on either side of the scene's heading."""
ELEVATION_DEGREES = (15.0, 50.0)
RADIUS = (2.5, 3.5)
LOOK_AT = (0.0, 0.0, 0.35)
LOOK_AT_JITTER = 0.15
OBJECTS = (2, 4)
OBJECT_SIZE = (0.36, 0.62)


@dataclass(frozen=True)
class SceneObject:
    """A shape with a place in the world."""

    shape: str
    """A name of `CLASS_NAMES` that is a shape."""
    pose: Floats
    """Object to world [4, 4]; may scale."""
    textures: tuple[Texture, ...]
    """One for each material of the shape."""

    @property
    def placements(self) -> tuple[Placement, ...]:
        """The primitives that the shape is composed of."""
        return (SHAPES | OOD_SHAPES)[self.shape]


@dataclass(frozen=True)
class Floor:
    """The plane z = 0. It dissolves into the sky's horizon colour between two distances from the origin."""

    texture: Texture
    tile: float
    """World units for one repeat of the texture."""
    fade: tuple[float, float] = (2.5, 6.0)


@dataclass(frozen=True)
class Light:
    """The sun, with hard shadows, and an ambient light that is a little stronger from above."""

    direction: tuple[float, float, float]
    """Unit vector from the scene towards the light."""
    ambient: float
    diffuse: float


@dataclass(frozen=True)
class Scene:
    """Everything there is to see. The sky goes from `horizon` to `zenith` and is infinitely far away."""

    objects: tuple[SceneObject, ...]
    floor: Floor
    light: Light
    horizon: Colour
    zenith: Colour


@dataclass(frozen=True)
class Cameras:
    """V pinhole cameras of one image size.

    OpenCV convention: camera x right, y down, z forward. The centre of the pixel in row i, column j is (j + 0.5, i + 0.5).
    """

    c2w: NDArray[np.float32]
    """Camera to world [V, 4, 4]."""
    intrinsics: NDArray[np.float32]
    """(fx, fy, cx, cy) in pixels [V, 4]."""
    image_size: int
    """Height and width in pixels."""


def look_at(position: Floats, target: Floats) -> NDArray[np.float32]:
    """Camera-to-world pose [4, 4] of a level camera at `position` [3] that looks at `target` [3] (never straight up)."""
    forward = target - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right = right / np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3] = np.stack([right, np.cross(forward, right), forward, position], axis=1)
    return c2w.astype(np.float32)


def sample_cameras(
    rng: np.random.Generator,
    views: int,
    image_size: int,
    *,
    elevation_degrees: tuple[float, float] = ELEVATION_DEGREES,
    radius: tuple[float, float] = RADIUS,
) -> Cameras:
    """Draw the cameras of one scene within a cone around a random heading.

    Azimuths step by the golden ratio through the cone, so that the first n views cover it for every n: the first two
    are 46 or 74 degrees apart (before a jitter of up to 5 degrees each).
    """
    heading, start = rng.uniform(0, 2 * np.pi), rng.random()
    poses = []
    for view in range(views):
        step = (start + view * (np.sqrt(5) - 1) / 2) % 1.0
        spread = AZIMUTH_SPREAD_DEGREES * (2 * step - 1) + rng.uniform(-5, 5)
        azimuth, elevation = heading + np.deg2rad(spread), np.deg2rad(rng.uniform(*elevation_degrees))
        outward = [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
        position = rng.uniform(*radius) * np.array(outward) + LOOK_AT
        poses.append(look_at(position, LOOK_AT + rng.uniform(-LOOK_AT_JITTER, LOOK_AT_JITTER, 3)))
    focal = image_size / 2 / np.tan(np.deg2rad(FIELD_OF_VIEW_DEGREES) / 2)
    intrinsics = np.tile(np.array([focal, focal, image_size / 2, image_size / 2], np.float32), (views, 1))
    return Cameras(np.stack(poses), intrinsics, image_size)


def sample_scene(rng: np.random.Generator, *, ood: bool = False) -> Scene:
    """Draw a scene of up to 4 objects (mostly 2 or 3); `ood` takes shapes and textures from the lists that no other split sees."""
    hue = rng.choice([0.08, 0.55, 0.6, 0.62]) + rng.uniform(-0.03, 0.03)
    zenith = _colour(hue, rng.uniform(0.25, 0.6), rng.uniform(0.6, 0.9))
    horizon = _colour(hue, rng.uniform(0.05, 0.2), rng.uniform(0.8, 0.95))
    floor = Floor(_floor_texture(rng, ood), tile=rng.uniform(1.6, 2.4))
    light = sample_light(rng)
    return Scene(_sample_objects(rng, ood), floor, light, horizon, zenith)


def sample_light(rng: np.random.Generator) -> Light:
    """Draw the sun, 35 to 65 degrees high, and the brightness of both lights."""
    sun, height = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(35, 65))
    direction = (float(np.cos(height) * np.cos(sun)), float(np.cos(height) * np.sin(sun)), float(np.sin(height)))
    return Light(direction, ambient=rng.uniform(0.35, 0.45), diffuse=rng.uniform(0.55, 0.7))


def _sample_objects(rng: np.random.Generator, ood: bool) -> tuple[SceneObject, ...]:
    """Stand objects on the floor without overlap; one that finds no room in 30 attempts is left out."""
    shapes = tuple(OOD_SHAPES if ood else SHAPES)
    discs: list[tuple[Floats, float]] = []
    objects = []
    for _ in range(rng.integers(OBJECTS[0], OBJECTS[1] + 1)):
        shape, size = shapes[rng.integers(len(shapes))], rng.uniform(*OBJECT_SIZE)
        placements = (SHAPES | OOD_SHAPES)[shape]
        textures = tuple(_object_texture(rng, ood) for _ in range(1 + max(part.material for part in placements)))
        turn, tips_over = rng.uniform(0, 2 * np.pi), bool(rng.random() < 0.25)
        for _attempt in range(30):
            angle, distance = rng.uniform(0, 2 * np.pi), 0.95 * np.sqrt(rng.random())
            place = distance * np.array([np.cos(angle), np.sin(angle)])
            if all(np.linalg.norm(place - other) > size + radius for other, radius in discs):
                discs.append((place, size))
                objects.append(SceneObject(shape, standing_pose(placements, place, size, turn, tips_over), textures))
                break
    return tuple(objects)


def standing_pose(
    placements: tuple[Placement, ...], place: Floats, size: float, turn: float, tips_over: bool
) -> Floats:
    """Pose [4, 4] that scales by `size`, turns about z (on its side if `tips_over`) and touches the floor at `place`."""
    c, s = np.cos(turn), np.sin(turn)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    if tips_over and len(placements) == 1:
        rotation = rotation @ quarter_turns(1, 0)
    pose = np.eye(4)
    pose[:3, :3] = size * rotation
    lowest = min((part_positions(part) @ pose[:3, :3].T)[..., 2].min() for part in placements)
    pose[:3, 3] = place[0], place[1], -lowest
    return pose


def quarter_turns(about_x: int, about_z: int) -> Floats:
    """Rotation [3, 3]: exact quarter turns about x, then about z."""
    x, z = np.eye(3), np.eye(3)
    for _ in range(about_x % 4):
        x = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ x
    for _ in range(about_z % 4):
        z = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) @ z
    return z @ x


def part_positions(part: Placement) -> Floats:
    """Corners [T, 3, 3] of a placed primitive in the frame of its shape."""
    return primitive(part.primitive).positions * part.scale @ quarter_turns(*part.quarter_turns).T + part.offset


def _colour(hue: float, saturation: float, value: float) -> Colour:
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def _object_texture(rng: np.random.Generator, ood: bool) -> Texture:
    hue, saturation, value = rng.random(), rng.uniform(0.45, 0.9), rng.uniform(0.6, 0.95)
    light = _colour(hue, saturation, value)
    dark = _colour(hue + rng.uniform(0.08, 0.5), rng.uniform(0.3, 0.9), rng.uniform(0.15, 0.5))
    return Texture(_texture_name(rng, ood, solid=0.35), dark, light, int(rng.integers(3)))


def _floor_texture(rng: np.random.Generator, ood: bool) -> Texture:
    """Draw paler and of less contrast than the objects' textures."""
    hue, saturation, value = rng.random(), rng.uniform(0.1, 0.45), rng.uniform(0.55, 0.85)
    light = _colour(hue, saturation, value)
    dark = _colour(hue + rng.uniform(-0.1, 0.1), saturation, value * rng.uniform(0.4, 0.75))
    return Texture(_texture_name(rng, ood, solid=0.2), dark, light, int(rng.integers(3)))


def _texture_name(rng: np.random.Generator, ood: bool, solid: float) -> str:
    """`solid` is the share of plain colours, which ood has not; the rest is two thirds patterns, one third photographs."""
    first, second, third = rng.random(3)
    if ood and second < 0.66:
        names: tuple[str, ...] = tuple(OOD_PATTERNS)
    elif ood:
        names = OOD_PHOTOGRAPHS
    elif first < solid:
        return "solid"
    else:
        names = tuple(name for name in PATTERNS if name != "solid") if second < 0.66 else PHOTOGRAPHS
    return names[int(third * len(names))]
