"""The cache of pictures with named things: rendered once with all cores, then read through memory maps.

    cache_dir/named-v1/<split>-<images>-<size>px-<key>/

is a `RenderedFolder`. The key is a hash of what determines the bytes, so that two specs never share a folder.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.cache_folder import Progress, digest
from bench.data.labelled import Vocabulary
from bench.data.named.spec import NAMED_VERSION, SPLITS, NamedSceneSpec, check_split, shard_ranges
from bench.data.rendered import RenderedFolder
from bench.data.shards import ShardedArray, write_shard

FIELDS = ("rgb", "labels")
BYTES_PER_PIXEL = 3 + 2
NOTICE = (
    "The pictures are rendered and their names composed of a few words: numbers compare architectures in compositional "
    "zero-shot segmentation and say nothing of natural images or of what CLIP knows."
)


class NamedScenes:
    """The pictures of one split on disk; see `open_named`."""

    notices: tuple[str, ...] = (NOTICE,)

    def __init__(self, vocabulary: Vocabulary, arrays: Mapping[str, ShardedArray], fingerprint: str) -> None:
        """Take the split's fields, memory-mapped."""
        self.vocabulary: Vocabulary = vocabulary
        self.fingerprint: str = fingerprint
        self._rgb, self._labels = arrays["rgb"], arrays["labels"]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._rgb)

    def name(self, index: int) -> str:
        """``scene-00012``."""
        return f"scene-{index:05d}"

    def image(self, index: int) -> NDArray[np.uint8]:
        """RGB [H, W, 3] of picture `index`."""
        return self._rgb[index]

    def labels(self, index: int) -> NDArray[np.uint16]:
        """[H, W] of picture `index`: position in the vocabulary, or `VOID` where a thing is hardly seen."""
        return self._labels[index]


def split_folder(spec: NamedSceneSpec, split: str, cache_dir: Path) -> Path:
    """Where `split` of `spec` lies, or will lie."""
    key = digest(spec.describe(split))[:12]
    return Path(cache_dir) / f"named-v{NAMED_VERSION}" / f"{split}-{spec.images(split)}-{spec.image_size}px-{key}"


def prepare(
    spec: NamedSceneSpec,
    cache_dir: Path,
    progress: Progress | None = None,
    splits: Collection[str] = SPLITS,
    workers: int | None = None,
) -> None:
    """Render what is missing of `splits`.

    A shard that is there but damaged is an error, not rendered again in silence. Idempotent, and safe when several processes
    call it at once: one renders, the others wait for it.

    Args:
        spec: what to render.
        cache_dir: folder that is made if it is missing.
        progress: told of every finished shard.
        splits: names of `SPLITS`.
        workers: processes; None takes every core this process may use, 1 renders in this process. A script that asks
            for more than one must guard its entry with `if __name__ == "__main__"`, as for any process pool.

    Raises:
        UserError: an unknown split, a damaged shard or manifest, a full disk or a folder that cannot be written.
    """
    for split in dict.fromkeys(check_split(split) for split in splits):
        _rendered(spec, split, cache_dir).complete(workers, progress)


def open_named(spec: NamedSceneSpec, split: str, cache_dir: Path, *, verify: bool = True) -> NamedScenes:
    """Open a split that `prepare` has rendered; a `LabelledImages`.

    File sizes are always checked, SHA-256 sums if `verify` (a fraction of a second for the default sets).

    Raises:
        UserError: the split is not there, not complete, or damaged; the message names the file and the mend.
    """
    rendered = _rendered(spec, split, cache_dir)
    arrays, shards = rendered.open(verify=verify)
    return NamedScenes(spec.vocabulary(split), arrays, rendered.fingerprint(shards))


def _rendered(spec: NamedSceneSpec, split: str, cache_dir: Path) -> RenderedFolder:
    return RenderedFolder(
        what="named scenes",
        split=split,
        folder=split_folder(spec, split, cache_dir),
        spec=spec.describe(split),
        fields=FIELDS,
        ranges=shard_ranges(spec, split),
        scene_bytes=spec.image_size**2 * BYTES_PER_PIXEL,
        render=partial(render_shard, spec, split),
        sources=partial(_sources, spec, split),
    )


def _sources(spec: NamedSceneSpec, split: str) -> dict[str, Any]:
    vocabulary = spec.vocabulary(split)
    return {"names": vocabulary.names, "groups": vocabulary.groups}


def render_shard(spec: NamedSceneSpec, split: str, pictures: range, folder: Path, number: int) -> dict[str, Any]:
    """Render and write one shard; return its manifest entries by field."""
    from bench.data.named.scene import make_picture

    made = [make_picture(spec, split, index) for index in pictures]
    return write_shard(folder, number, {field: [getattr(picture, field) for picture in made] for field in FIELDS})
