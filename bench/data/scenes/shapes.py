"""Unit shapes: primitives as triangles with normals and texture coordinates, and the composed shapes built from them.

Every primitive fits in [-1, 1]^3 and is centred; z is up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import trimesh

Floats = NDArray[np.float64]
Vector = tuple[float, float, float]

CREASE_DEGREES = 35.0
"""Faces that meet at a flatter angle are shaded as one smooth surface."""


@dataclass(frozen=True)
class Primitive:
    """Triangle soup. Corner c of triangle t has position, normal and (u, v) `[t, c]`."""

    positions: Floats
    """[T, 3, 3]"""
    normals: Floats
    """[T, 3, 3], unit length, outward."""
    uv: Floats
    """[T, 3, 2]"""


@dataclass(frozen=True)
class Placement:
    """One primitive inside a shape: scaled along its own axes, turned by quarter turns about x, then moved."""

    primitive: str
    scale: Vector = (1.0, 1.0, 1.0)
    offset: Vector = (0.0, 0.0, 0.0)
    material: int = 0
    """Placements with the same number share a texture."""
    quarter_turns: tuple[int, int] = (0, 0)
    """Quarter turns about x, then about z."""


SHAPES: dict[str, tuple[Placement, ...]] = {
    "sphere": (Placement("sphere"),),
    "box": (Placement("box", (0.8, 0.8, 0.8)),),
    "cylinder": (Placement("cylinder", (0.75, 0.75, 0.9)),),
    "cone": (Placement("cone", (0.95, 0.95, 1.0)),),
    "torus": (Placement("torus"),),
    "capsule": (Placement("capsule"),),
    "icosahedron": (Placement("icosahedron"),),
    "snowman": (
        Placement("sphere", (0.65, 0.65, 0.65), (0, 0, -0.35)),
        Placement("sphere", (0.42, 0.42, 0.42), (0, 0, 0.55), material=1),
    ),
    "table": (
        Placement("box", (0.95, 0.7, 0.12), (0, 0, 0.5)),
        *(
            Placement("cylinder", (0.12, 0.12, 0.55), (x, y, -0.15), material=1)
            for x in (-0.75, 0.75)
            for y in (-0.5, 0.5)
        ),
    ),
    "mushroom": (
        Placement("cylinder", (0.3, 0.3, 0.6), (0, 0, -0.4)),
        Placement("sphere", (0.9, 0.9, 0.5), (0, 0, 0.4), material=1),
    ),
    "dumbbell": (
        Placement("cylinder", (0.2, 0.2, 0.6), quarter_turns=(1, 1)),
        Placement("sphere", (0.48, 0.48, 0.48), (-0.52, 0, 0), material=1),
        Placement("sphere", (0.48, 0.48, 0.48), (0.52, 0, 0), material=1),
    ),
}
"""Shapes of the training, validation and test splits."""

OOD_SHAPES: dict[str, tuple[Placement, ...]] = {
    "pyramid": (Placement("pyramid", (1.0, 1.0, 0.9)),),
    "prism": (Placement("prism", (0.85, 0.85, 0.8)),),
    "tube": (Placement("tube", (0.9, 0.9, 0.7)),),
    "tree": (
        Placement("prism", (0.2, 0.2, 0.3), (0, 0, -0.7)),
        Placement("pyramid", (0.85, 0.85, 0.45), (0, 0, 0.0), material=1),
        Placement("pyramid", (0.65, 0.65, 0.4), (0, 0, 0.6), material=1),
    ),
    "arch": (
        Placement("prism", (0.25, 0.25, 0.7), (-0.7, 0, -0.2)),
        Placement("prism", (0.25, 0.25, 0.7), (0.7, 0, -0.2)),
        Placement("prism", (0.2, 0.2, 0.98), (0, 0, 0.68), material=1, quarter_turns=(1, 1)),
    ),
    "star": (
        Placement("octahedron", (1.0, 0.35, 0.35)),
        Placement("octahedron", (0.35, 1.0, 0.35)),
        Placement("octahedron", (0.35, 0.35, 1.0), material=1),
    ),
}
"""Shapes of the ood split; none of their primitives occurs in `SHAPES`."""

CLASS_NAMES = ("sky", "floor", *SHAPES, *OOD_SHAPES)
"""Class ids are positions in this tuple."""


@lru_cache(maxsize=32)
def primitive(name: str) -> Primitive:
    """Build a primitive by name; cached, so treat the arrays as read-only. Raises `KeyError` for an unknown name."""
    from trimesh import Trimesh, creation

    builders = {
        "sphere": lambda: creation.icosphere(subdivisions=3, radius=1.0),
        "box": lambda: creation.box(extents=(2, 2, 2)),
        "cylinder": lambda: creation.cylinder(radius=1.0, height=2.0, sections=40),
        "cone": lambda: creation.cone(radius=1.0, height=2.0, sections=40),
        "torus": lambda: creation.torus(major_radius=0.68, minor_radius=0.32, major_sections=40, minor_sections=20),
        "capsule": lambda: creation.capsule(height=1.0, radius=0.5, count=[24, 24]),
        "icosahedron": creation.icosahedron,
        "pyramid": lambda: creation.cone(radius=1.0, height=2.0, sections=4),
        "prism": lambda: creation.cylinder(radius=1.0, height=2.0, sections=6),
        "tube": lambda: creation.annulus(r_min=0.6, r_max=1.0, height=2.0, sections=40),
        "octahedron": lambda: Trimesh(
            vertices=[[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]],
            faces=[[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]],
        ),
    }
    mesh = builders[name]()
    mesh.apply_translation(-mesh.bounds.mean(axis=0))
    positions = np.asarray(mesh.triangles, dtype=np.float64)
    flat_sided = name in ("box", "icosahedron", "octahedron")
    uv = _box_uv(positions, np.asarray(mesh.face_normals)) if flat_sided else _round_uv(positions)
    return Primitive(positions, _corner_normals(mesh), uv)


def _corner_normals(mesh: trimesh.Trimesh) -> Floats:
    """Average, at each corner, the normals of the faces around it that meet without a crease. [T, 3, 3]."""
    normals, areas = np.asarray(mesh.face_normals), np.asarray(mesh.area_faces)
    around = np.asarray(mesh.vertex_faces)[np.asarray(mesh.faces)]  # [T, 3, K] face numbers, -1 for none
    candidates = normals[around]
    smooth = (candidates * normals[:, None, None]).sum(-1) > np.cos(np.deg2rad(CREASE_DEGREES))
    weights = np.where((around >= 0) & smooth, areas[around], 0.0)
    total = (candidates * weights[..., None]).sum(-2)
    return total / np.linalg.norm(total, axis=-1, keepdims=True)


def _box_uv(positions: Floats, normals: Floats) -> Floats:
    """Look along the axis that each face points at most: no distortion, a seam at the edges."""
    axis = np.abs(normals).argmax(-1)
    others = np.array([[1, 2], [0, 2], [0, 1]])[axis]  # [T, 2]
    return (np.take_along_axis(positions, others[:, None, :].repeat(3, axis=1), axis=-1) + 1) / 2


def _round_uv(positions: Floats) -> Floats:
    """Two turns of u around the z axis, v along the height; flat caps (all corners at one height) look down z."""
    x, y, z = np.moveaxis(positions, -1, 0)
    turn = np.arctan2(y, x) / (2 * np.pi)
    turn -= np.round(turn - turn[:, :1])  # a triangle across the +-pi seam stays in one piece
    # A corner on the axis has no angle of its own: give it the mean of the other two.
    on_axis = np.hypot(x, y) < 1e-9
    mean = np.where(on_axis, 0, turn).sum(1, keepdims=True) / np.maximum((~on_axis).sum(1, keepdims=True), 1)
    side = np.stack([2 * np.where(on_axis, mean, turn), (z + 1) / 2], -1)
    cap = (np.ptp(z, axis=1) < 1e-9)[:, None, None]
    return np.where(cap, (positions[..., :2] + 1) / 2, side)
