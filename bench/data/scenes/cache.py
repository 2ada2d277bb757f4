"""The scene cache: rendered once with all cores, then read through memory maps.

    cache_dir/scenes-v1/<split>-<scenes>x<views>-<size>px-<key>/

is a `RenderedFolder`. The key is a hash of what determines the bytes, so that two specs never share a folder.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.arrays import ArraySplit
from bench.data.cache_folder import Progress, digest
from bench.data.rendered import RenderedFolder
from bench.data.scenes.spec import SCENES_VERSION, SceneSpec, check_split, scene_generator, shard_ranges
from bench.data.shards import ShardedArray, write_shard

FIELDS = ("rgb", "depth", "instance", "classes", "c2w", "intrinsics")
BYTES_PER_PIXEL = 3 + 2 + 1 + 1


@dataclass(frozen=True, kw_only=True)
class SceneSplit(ArraySplit):
    """A split on disk: N scenes of V views. Poses and intrinsics are in memory, the rest is memory-mapped."""

    rgb: ShardedArray
    """uint8 [N, V, H, W, 3]"""
    depth: ShardedArray = dataclass_field()  # not optional here
    """float16 [N, V, H, W], along the camera's z axis; 0 where there is only sky."""
    instance: ShardedArray
    """uint8 [N, V, H, W]: 0 sky, 1 floor, 2 + k object k."""
    classes: ShardedArray
    """uint8 [N, V, H, W]: position in `CLASS_NAMES`."""


def split_folder(spec: SceneSpec, split: str, cache_dir: Path) -> Path:
    """Where `split` of `spec` lies, or will lie."""
    key = digest(spec.describe(split))[:12]
    name = f"{split}-{spec.scenes(split)}x{spec.views(split)}-{spec.image_size}px-{key}"
    return Path(cache_dir) / f"scenes-v{SCENES_VERSION}" / name


def prepare(
    spec: SceneSpec,
    splits: Collection[str],
    cache_dir: Path,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Render what is missing of `splits`.

    A shard that is there but damaged is an error, not rendered again in silence: who trusts the numbers wants to know that
    the disk does not keep what is written to it. Idempotent, and safe when several processes call it at once: one renders, the others wait for it.

    Args:
        spec: what to render.
        splits: names of `SPLITS`.
        cache_dir: folder that is made if it is missing.
        workers: processes; None takes every core this process may use, 1 renders in this process. A script that asks
            for more than one must guard its entry with `if __name__ == "__main__"`, as for any process pool.
        progress: told of every finished shard.

    Raises:
        UserError: an unknown split, a damaged shard or manifest, a full disk or a folder that cannot be written.
    """
    for split in dict.fromkeys(check_split(split) for split in splits):
        _rendered(spec, split, cache_dir).complete(workers, progress)


def open_split(spec: SceneSpec, split: str, cache_dir: Path, *, verify: bool = True) -> SceneSplit:
    """Open a split that `prepare` has rendered.

    File sizes are always checked, SHA-256 sums if `verify` (about a second for the default training split).

    Raises:
        UserError: the split is not there, not complete, or damaged; the message names the file and the mend.
    """
    arrays, _ = _rendered(spec, split, cache_dir).open(verify=verify)
    return SceneSplit(
        rgb=arrays["rgb"],
        depth=arrays["depth"],
        instance=arrays["instance"],
        classes=arrays["classes"],
        c2w=np.asarray(arrays["c2w"]),
        intrinsics=np.asarray(arrays["intrinsics"]),
    )


def _rendered(spec: SceneSpec, split: str, cache_dir: Path) -> RenderedFolder:
    return RenderedFolder(
        what="scenes",
        split=split,
        folder=split_folder(spec, split, cache_dir),
        spec=spec.describe(split),
        fields=FIELDS,
        ranges=shard_ranges(spec, split),
        scene_bytes=spec.views(split) * spec.image_size**2 * BYTES_PER_PIXEL,
        render=partial(render_shard, spec, split),
        sources=partial(_sources, split),
    )


def _sources(split: str) -> dict[str, Any]:
    from bench.data.scenes.textures import OOD_TEXTURES, TEXTURES, photograph_sums

    return {"textures": list(OOD_TEXTURES if split == "ood" else TEXTURES), "photographs": photograph_sums()}


def render_shard(spec: SceneSpec, split: str, scenes: range, folder: Path, number: int) -> dict[str, Any]:
    """Render and write one shard; return its manifest entries by field."""
    from bench.data.scenes.render import render
    from bench.data.scenes.scene import sample_cameras, sample_scene

    rows: dict[str, list[NDArray[Any]]] = {field: [] for field in FIELDS}
    for index in scenes:
        rng = scene_generator(spec, split, index)
        scene = sample_scene(rng, ood=split == "ood")
        cameras = sample_cameras(rng, spec.views(split), spec.image_size)
        views = render(scene, cameras, spec.supersampling)
        for field in FIELDS:
            rows[field].append(getattr(cameras if field in ("c2w", "intrinsics") else views, field))
    return write_shard(folder, number, rows)
