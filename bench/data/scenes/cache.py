"""The scene cache: rendered once with all cores, then read through memory maps.

    cache_dir/scenes-v1/<split>-<scenes>x<views>-<size>px-<key>/
        manifest.json             the spec and one entry for each finished shard, with its files' SHA-256
        shard-0000-rgb.npy ...    one file for each field of each shard
        .lock                     held (fcntl) by the process that renders

The key is a hash of what determines the bytes, so that two specs never share a folder. A shard counts as finished once it
is in the manifest; both are replaced atomically, so a run that is killed at any moment is resumed by the next.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Collection, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.arrays import ArraySplit
from bench.data.cache_folder import Progress, check_space, seal, sole_writer, unseal
from bench.data.scenes.shards import ShardedArray, find_damage, write_array, write_atomically
from bench.data.scenes.spec import SCENES_VERSION, SceneSpec, check_split, scene_generator, shard_ranges
from bench.errors import UserError

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
    description = json.dumps(spec.describe(split), sort_keys=True)
    key = hashlib.sha256(description.encode()).hexdigest()[:12]
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
    if workers is not None and workers < 1:
        raise UserError(f"workers must be >= 1, got {workers}")
    for split in dict.fromkeys(check_split(split) for split in splits):
        folder = split_folder(spec, split, cache_dir)
        with sole_writer(folder, f"renders {split} scenes", progress):
            _complete(spec, split, folder, workers or _usable_cores(), progress)


def open_split(spec: SceneSpec, split: str, cache_dir: Path, *, verify: bool = True) -> SceneSplit:
    """Open a split that `prepare` has rendered.

    File sizes are always checked, SHA-256 sums if `verify` (about a second for the default training split).

    Raises:
        UserError: the split is not there, not complete, or damaged; the message names the file and the mend.
    """
    folder = split_folder(spec, split, cache_dir)
    if not (folder / "manifest.json").is_file():
        raise UserError(f"scenes: {split} is not in the cache ({folder}); prepare it first")
    shards = _read_manifest(folder, spec, split)
    total = len(shard_ranges(spec, split))
    if len(shards) != total:
        raise UserError(f"scenes: {folder} holds {len(shards)} of {total} shards; prepare {split} again to finish it")
    for number in range(total):
        for entry in shards[number].values():
            _refuse_damage(folder, entry, checksum=verify)
    arrays = {field: ShardedArray([folder / shards[n][field]["name"] for n in range(total)]) for field in FIELDS}
    return SceneSplit(
        rgb=arrays["rgb"],
        depth=arrays["depth"],
        instance=arrays["instance"],
        classes=arrays["classes"],
        c2w=np.asarray(arrays["c2w"]),
        intrinsics=np.asarray(arrays["intrinsics"]),
    )


def _refuse_damage(folder: Path, entry: dict[str, Any], *, checksum: bool) -> None:
    if damage := find_damage(folder, entry, checksum=checksum):
        raise UserError(f"scenes: {damage}; delete {folder / entry['name']} and run again to render it anew")


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _complete(spec: SceneSpec, split: str, folder: Path, workers: int, progress: Progress | None) -> None:
    """Render the shards of `split` that are missing; the caller holds the lock."""
    ranges = shard_ranges(spec, split)
    shards = _read_manifest(folder, spec, split) if (folder / "manifest.json").is_file() else {}
    for number in sorted(shards):
        if any(not (folder / entry["name"]).is_file() for entry in shards[number].values()):
            del shards[number]
            continue
        for entry in shards[number].values():
            _refuse_damage(folder, entry, checksum=True)
    missing = [number for number in range(len(ranges)) if number not in shards]
    if not missing:
        return
    _check_renderer()
    for leftover in folder.glob(".*.tmp"):  # of a process that was killed; the lock says that it is gone
        leftover.unlink(missing_ok=True)
    scenes = sum(len(ranges[number]) for number in missing)
    check_space(folder, scenes * spec.views(split) * spec.image_size**2 * BYTES_PER_PIXEL, f"scenes: {split}")
    done = sum(len(ranges[number]) for number in shards)
    label = f"rendering {split} scenes"
    if progress:
        progress(label, done, spec.scenes(split))
    with closing(_render_all(spec, split, folder, missing, ranges, workers)) as finished:
        for number, entries in finished:
            shards[number] = entries
            _write_manifest(folder, spec, split, shards)
            done += len(ranges[number])
            if progress:
                progress(label, done, spec.scenes(split))


def _render_all(
    spec: SceneSpec, split: str, folder: Path, missing: Sequence[int], ranges: Sequence[range], workers: int
) -> Generator[tuple[int, dict[str, Any]]]:
    """Yield (shard, manifest entries) in the order in which the shards are finished."""
    workers = min(workers, len(missing))
    if workers == 1:
        for number in missing:
            yield number, render_shard(spec, split, ranges[number], folder, number)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_set_up_worker) as pool:
        futures = {pool.submit(render_shard, spec, split, ranges[n], folder, n): n for n in missing}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise UserError(
                f"scenes: a render process was killed (out of memory?) while rendering {split}; "
                "run again with fewer workers: finished shards are kept"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _set_up_worker() -> None:
    """End at once and in silence on Ctrl-C, and do not render on as an orphan when the parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
    return {field: write_array(folder / f"shard-{number:04d}-{field}.npy", np.stack(rows[field])) for field in FIELDS}


def _check_renderer() -> None:
    for module in ("trimesh", "embreex", "skimage"):
        if importlib.util.find_spec(module) is None:
            package = "scikit-image" if module == "skimage" else module
            raise UserError(f"scenes cannot be rendered: {package} is not installed; run pip install {package}")


def _write_manifest(folder: Path, spec: SceneSpec, split: str, shards: dict[int, dict[str, Any]]) -> None:
    from bench.data.scenes.textures import OOD_TEXTURES, TEXTURES, photograph_sums

    manifest = {
        "spec": spec.describe(split),
        "complete": len(shards) == len(shard_ranges(spec, split)),
        "textures": list(OOD_TEXTURES if split == "ood" else TEXTURES),
        "photographs": photograph_sums(),
        "software": {name: version(name) for name in ("numpy", "trimesh", "embreex", "scikit-image")},
        "shards": {str(number): shards[number] for number in sorted(shards)},
    }
    write_atomically(folder / "manifest.json", seal(manifest))


def _read_manifest(folder: Path, spec: SceneSpec, split: str) -> dict[int, dict[str, Any]]:
    """Return the manifest's shards, or raise `UserError` if it is not what `_write_manifest` wrote for this spec."""
    manifest = unseal(folder / "manifest.json", spec.describe(split), "scenes")
    return {int(number): entry for number, entry in manifest["shards"].items()}
