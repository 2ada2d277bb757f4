"""A picture of the scenes for the documentation and for the eye.

from PIL import Image; Image.fromarray(contact_sheet()).save("docs/scenes.png")
"""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from bench.data.scenes.render import Views, render
from bench.data.scenes.scene import sample_cameras, sample_scene
from bench.data.scenes.shapes import CLASS_NAMES
from bench.data.scenes.spec import SceneSpec, scene_generator

ROWS = (("train", 1), ("train", 2), ("train", 4), ("ood", 1), ("ood", 4))


def contact_sheet(spec: SceneSpec | None = None, columns: int = 4) -> NDArray[np.uint8]:
    """One row a scene: RGB of its first views, then depth (near is bright), instances and classes of the first."""
    spec = spec or SceneSpec(image_size=96)
    rows = []
    for split, index in ROWS:
        rng = scene_generator(spec, split, index)
        scene = sample_scene(rng, ood=split == "ood")
        views = render(scene, sample_cameras(rng, spec.views(split), spec.image_size), spec.supersampling)
        rows.append(np.concatenate([*views.rgb[:columns], *_maps(views)], axis=1))
    return np.concatenate(rows)


def _maps(views: Views) -> list[NDArray[np.uint8]]:
    depth = views.depth[0].astype(np.float32)
    near = np.where(depth > 0, 1.5 / np.maximum(depth, 1.5), 0)
    return [
        np.repeat((near * 255).astype(np.uint8)[..., None], 3, axis=-1),
        _palette(6)[views.instance[0]],
        _palette(len(CLASS_NAMES))[views.classes[0]],
    ]


def _palette(count: int) -> NDArray[np.uint8]:
    """Grey-blue for the sky, grey for the floor, then hues by the golden ratio."""
    hues = [colorsys.hsv_to_rgb(k * 0.618 % 1, 0.65, 0.95) for k in range(count - 2)]
    return (np.array([(0.75, 0.8, 0.9), (0.5, 0.5, 0.5), *hues]) * 255).astype(np.uint8)
