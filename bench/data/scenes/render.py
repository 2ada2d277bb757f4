"""Ray casting with Embree: `render(scene, cameras) -> Views`.

Rays leave the camera with directions whose camera-space z is 1, so the ray parameter of a hit is its z-depth. Embree
finds the hits; everything else is numpy on float32. No matrix product is used: BLAS may start threads and may round
differently with their number, and the pixels must not depend on that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.scenes.scene import Cameras, Scene, part_positions, quarter_turns
from bench.data.scenes.shapes import CLASS_NAMES, primitive
from bench.data.scenes.textures import Texture, bake

Floats = NDArray[np.float32]

SHADOW_BIAS = 2e-3
"""World units between a surface and the start of its shadow ray."""
SMALLEST_TEXTURE = 32
"""Texels along a texture's side, at least; otherwise as many as the image has pixels, about one texel a pixel."""


@dataclass(frozen=True)
class Views:
    """V rendered images. Everything but `rgb` belongs to the ray through the centre of its pixel."""

    rgb: NDArray[np.uint8]
    """Display values [V, H, W, 3]."""
    depth: NDArray[np.float16]
    """Distance along the camera's z axis in world units [V, H, W]; 0 where there is only sky."""
    instance: NDArray[np.uint8]
    """0 sky, 1 floor, 2 + k object k of the scene [V, H, W]."""
    classes: NDArray[np.uint8]
    """Position in `CLASS_NAMES` [V, H, W]."""
    normals: Floats
    """Unit normals of the triangles, in world axes [V, H, W, 3]; zero for the sky. Not written to the cache."""


@dataclass(frozen=True)
class _Surface:
    """All triangles of a scene, ready for lookup by Embree's triangle number."""

    tracer: Any
    attributes: Floats
    """[T, 3, 5]: (normal, u, v) at corner 0, and the changes towards corners 1 and 2."""
    atlas: Floats
    """[P * (S + 1)^2, 3]: the textures, each with its first row and column repeated at the end."""
    normals: Floats
    """Outward unit normals [T, 3]. (Embree's own `Ng` changed its sign between versions.)"""
    texture: NDArray[np.intp]
    """Offset of the triangle's texture in the atlas [T]."""
    instance: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    texture_size: int


def render(scene: Scene, cameras: Cameras, supersampling: int = 2) -> Views:
    """Render `scene` as seen by each camera; RGB averages `supersampling`^2 samples a pixel."""
    size, views = cameras.image_size, len(cameras.c2w)
    surface = _build(scene, max(SMALLEST_TEXTURE, size))
    rgb = np.empty((views, size, size, 3), np.uint8)
    depth = np.empty((views, size, size), np.float16)
    instance, classes = np.empty((2, views, size, size), np.uint8)
    normals = np.empty((views, size, size, 3), np.float32)
    for view in range(views):
        c2w, intrinsics = cameras.c2w[view], cameras.intrinsics[view]
        rays = _rays(c2w, intrinsics, size, 1)
        hits = _trace(surface, c2w[:3, 3], rays)
        triangle, seen = hits["primID"], hits["primID"] >= 0
        depth[view] = np.where(seen, hits["tfar"], 0).reshape(size, size)
        instance[view] = np.where(seen, surface.instance[triangle], 0).reshape(size, size)
        classes[view] = np.where(seen, surface.classes[triangle], 0).reshape(size, size)
        normals[view] = (surface.normals[triangle] * seen[:, None]).reshape(size, size, 3)
        if supersampling > 1:
            rays = _rays(c2w, intrinsics, size, supersampling)
            hits = _trace(surface, c2w[:3, 3], rays)
        colours = _shade(scene, surface, c2w[:3, 3], rays, hits)
        means = colours.reshape(size, size, supersampling**2, 3).mean(axis=2) if supersampling > 1 else colours
        rgb[view] = (np.clip(means, 0, 1) * 255 + 0.5).astype(np.uint8).reshape(size, size, 3)
    return Views(rgb, depth, instance, classes, normals)


def _build(scene: Scene, texture_size: int) -> _Surface:
    """Collect the triangles of floor and objects into one Embree scene."""
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    floor = _disc(scene.floor.fade[1])
    positions, uv = [floor], [floor[..., :2] / scene.floor.tile]
    normals = [np.broadcast_to([0.0, 0, 1], floor.shape)]
    labels = [(len(floor), 0, 1, CLASS_NAMES.index("floor"))]  # triangles, texture, instance, class
    textures: list[Texture] = [scene.floor.texture]
    for number, thing in enumerate(scene.objects):
        rotation = thing.pose[:3, :3]
        for part in thing.placements:
            soup = primitive(part.primitive)
            positions.append(_apply(rotation, part_positions(part)) + thing.pose[:3, 3])
            turned = _apply(quarter_turns(*part.quarter_turns), soup.normals / part.scale)
            # `pose` scales alike in all directions, so its own matrix carries normals as well.
            turned = _apply(rotation, turned)
            normals.append(turned / np.sqrt(np.square(turned).sum(-1, keepdims=True)))
            uv.append(soup.uv)
            class_id = CLASS_NAMES.index(thing.shape)
            labels.append((len(soup.positions), len(textures) + part.material, 2 + number, class_id))
        textures.extend(thing.textures)

    attributes = np.concatenate([np.concatenate(normals), np.concatenate(uv)], axis=-1).astype(np.float32)
    attributes[:, 1:] -= attributes[:, :1]
    counts, *columns = np.array(labels).T
    texture, instance, classes = (np.repeat(column, counts) for column in columns)
    atlas = np.stack([np.pad(bake(item, texture_size), ((0, 1), (0, 1), (0, 0)), "wrap") for item in textures])
    triangles = np.concatenate(positions)
    facing = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    vertices = triangles.astype(np.float32).reshape(-1, 3)
    tracer = EmbreeScene()
    TriangleMesh(tracer, vertices, np.arange(len(vertices), dtype=np.int32).reshape(-1, 3))
    return _Surface(
        tracer=tracer,
        attributes=attributes,
        atlas=atlas.reshape(-1, 3).astype(np.float32),
        normals=(facing / np.linalg.norm(facing, axis=-1, keepdims=True)).astype(np.float32),
        texture=(texture * (texture_size + 1) ** 2).astype(np.intp),
        instance=instance.astype(np.uint8),
        classes=classes.astype(np.uint8),
        texture_size=texture_size,
    )


def _disc(radius: float, sides: int = 48) -> NDArray[np.float64]:
    """Triangles [sides, 3, 3] of a polygon around a circle in the plane z = 0, facing up."""
    angle = np.arange(sides + 1) * (2 * np.pi / sides)
    rim = np.stack([np.cos(angle), np.sin(angle), np.zeros(sides + 1)], axis=-1) * (radius / np.cos(np.pi / sides))
    return np.stack([np.zeros((sides, 3)), rim[:-1], rim[1:]], axis=1)


def _apply(matrix: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply `matrix` [3, 3] to `vectors` [..., 3] without BLAS."""
    x, y, z = vectors[..., 0:1], vectors[..., 1:2], vectors[..., 2:3]
    return x * matrix[:, 0] + y * matrix[:, 1] + z * matrix[:, 2]


def _rays(c2w: Floats, intrinsics: Floats, size: int, samples: int) -> Floats:
    """World directions [H * W * samples^2, 3] through the samples of each pixel, with camera-space z = 1."""
    fx, fy, cx, cy = intrinsics
    offsets = (np.arange(samples, dtype=np.float32) + np.float32(0.5)) / samples
    pixels = np.arange(size, dtype=np.float32)[:, None] + offsets  # [size, samples]
    x, y = (pixels - cx) / fx, (pixels - cy) / fy
    shape = (size, size, samples, samples, 1)  # row, column, sample row, sample column
    rays = np.broadcast_to(x[None, :, None, :, None], shape) * c2w[:3, 0]
    rays += y[:, None, :, None, None] * c2w[:3, 1] + c2w[:3, 2]
    return rays.reshape(-1, 3)


def _trace(surface: _Surface, origin: Floats, rays: Floats) -> dict[str, NDArray[Any]]:
    """First hit along each ray: `primID` (-1 for none), `tfar`, barycentric `u` and `v`."""
    origins = np.empty_like(rays)
    origins[:] = origin
    hits: dict[str, NDArray[Any]] = surface.tracer.run(origins, rays, query="INTERSECT", output=True)
    return hits


def _shade(scene: Scene, surface: _Surface, origin: Floats, rays: Floats, hits: dict[str, NDArray[Any]]) -> Floats:
    """Colours [N, 3] float32 of the rays: sky, or albedo times (ambient + sun where no shadow falls)."""
    horizon, zenith = np.array(scene.horizon, np.float32), np.array(scene.zenith, np.float32)
    colours = np.empty_like(rays)
    seen = hits["primID"] >= 0
    sky = rays[~seen]
    height = sky[:, 2] / np.sqrt(np.square(sky).sum(-1))
    colours[~seen] = horizon + np.clip(height * np.float32(2.5), 0, 1)[:, None] * (zenith - horizon)

    index = np.flatnonzero(seen)
    triangle = hits["primID"].take(index)
    attributes = surface.attributes.take(triangle, axis=0)
    blend = attributes[:, 0]
    blend += hits["u"].take(index)[:, None] * attributes[:, 1]
    blend += hits["v"].take(index)[:, None] * attributes[:, 2]
    normal, uv = blend[:, :3], blend[:, 3:]
    normal /= np.sqrt(np.square(normal).sum(-1, keepdims=True))
    points = origin + hits["tfar"].take(index)[:, None] * rays.take(index, axis=0)

    light = scene.light
    sun = np.array(light.direction, np.float32)
    facing = (normal * sun).sum(-1)
    lit = facing > 0
    origins = points[lit] + np.float32(SHADOW_BIAS) * normal[lit]
    directions = np.empty_like(origins)
    directions[:] = sun
    occluded = surface.tracer.run(origins, directions, query="OCCLUDED") >= 0
    facing[~lit] = 0
    facing[np.flatnonzero(lit)[occluded]] = 0
    ambient = np.float32(light.ambient) * (np.float32(0.75) + np.float32(0.25) * normal[:, 2])
    shaded = _sample(surface, triangle, uv) * (ambient + np.float32(light.diffuse) * facing)[:, None]

    on_floor = np.flatnonzero(surface.instance.take(triangle) == 1)
    near, far = scene.floor.fade
    away = np.sqrt(np.square(points.take(on_floor, axis=0)[:, :2]).sum(-1))
    haze = np.clip((away - near) / (far - near), 0, 1).astype(np.float32)
    haze = (haze * haze * (3 - 2 * haze))[:, None]
    shaded[on_floor] += haze * (horizon - shaded.take(on_floor, axis=0))
    colours[index] = shaded
    return colours


def _sample(surface: _Surface, triangle: NDArray[np.int32], uv: Floats) -> Floats:
    """Albedo [N, 3] at texture coordinates `uv` [N, 2], bilinear, repeating."""
    size = surface.texture_size
    texel = (uv - np.floor(uv)) * np.float32(size)
    corner = np.minimum(texel.astype(np.int32), size - 1)
    fraction = texel - corner
    first = surface.texture.take(triangle) + corner[:, 1] * (size + 1) + corner[:, 0]
    right, down = fraction[:, :1], fraction[:, 1:]
    atlas = surface.atlas
    top = atlas.take(first, axis=0)
    top += right * (atlas.take(first + 1, axis=0) - top)
    bottom = atlas.take(first + (size + 1), axis=0)
    bottom += right * (atlas.take(first + (size + 2), axis=0) - bottom)
    top += down * (bottom - top)
    return top
