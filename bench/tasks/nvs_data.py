"""Where the task ``nvs`` gets its splits from: rendered scenes or data on disk, and how their poses are framed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from bench.data import scenes
from bench.data.cameras import SceneFrame, check_poses
from bench.errors import UserError
from bench.tasks.nvs_config import ENDLESS

if TYPE_CHECKING:
    from bench.data.multiview import MultiViewSplit
    from bench.data.scenes.cache import Progress
    from bench.tasks.nvs_config import NVSConfig

HOLDS = {
    "re10k": "RealEstate10K, with train/ and test/ as pixelSplat's chunks or as LVSM's converted tree",
    "objects": "rendered objects, one folder of views each, with train.json and test.json that list them",
    "transforms": "a transforms.json, or one folder with a transforms.json for each scene",
}
"""What `data_path` must lead to."""


class Source:
    """Opens the splits of a configuration."""

    def __init__(self, config: NVSConfig, cache_dir: Path) -> None:
        """Nothing is read before `open`."""
        self._config, self._cache_dir = config, cache_dir

    def render(self, report: Progress | None = None, workers: int | None = None) -> None:
        """Render what is missing of the embedded scenes."""
        splits = ("train", "validation", "test") + (("ood",) if self._config.ood else ())
        scenes.prepare(self._config.scene_spec, splits, self._cache_dir, workers=workers, progress=report)

    def open(self, split: str, report: Progress | None = None) -> MultiViewSplit:
        """``train``, ``validation``, ``test`` or, where it is rendered, ``ood``.

        Of data on disk the first scenes are taken, as many as the options allow. The first time, an index of RealEstate10K
        is made in the cache, which takes its time.

        Raises:
            UserError: there is no such split, or the data is not there.
        """
        config = self._config
        if split == "ood" and not config.ood:
            raise UserError("split ood is not rendered: set task.ood: true")
        if config.data == "scenes":
            return scenes.open_split(config.scene_spec, split, self._cache_dir)
        opened = self._read(split, report)
        limit = config.scene_limit(split)
        return opened if limit is None or limit >= len(opened) else First(opened, limit, split)

    @property
    def _root(self) -> Path:
        path, data = self._config.data_path, self._config.data
        if path is None:
            raise UserError(
                f"task.data_path is not set: give the folder of {HOLDS[data]}, or set task.data: scenes for the embedded ones"
            )
        root = Path(path).expanduser()
        if not root.is_dir():
            raise UserError(f"task.data_path: {path} is no folder; it must hold {HOLDS[data]}")
        return root

    def _read(self, split: str, report: Progress | None) -> MultiViewSplit:
        config, root = self._config, self._root
        # Where training shares the cores with decoding, no more threads than the comparison was given.
        workers = None if torch.cuda.is_available() else torch.get_num_threads()
        if config.data == "re10k":
            from bench.data.re10k import SceneRules, open_re10k

            rules = {
                "published": SceneRules(),
                "any-shape": SceneRules(shape=None),
                "none": SceneRules(None, None, None),
            }
            index = Path(config.evaluation_index).expanduser() if config.evaluation_index and split == "test" else None
            return open_re10k(
                root,
                split,
                image_size=config.image_size,
                cache_dir=self._cache_dir,
                evaluation_index=index,
                clean_for=(config.input_views, *config.extra_input_views) if config.clean_evaluation and index else (),
                rules=rules[config.scene_rules],
                min_gap=config.min_gap,
                max_gap=config.max_gap,
                validation_scenes=config.scene_limit("validation") or ENDLESS["validation"],
                workers=workers,
                report=report,
            )
        if config.data == "objects":
            from bench.data.objects import open_objects

            return open_objects(
                root,
                split,
                image_size=config.image_size,
                views=config.object_views,
                field_of_view=config.field_of_view,
                limit=config.scene_limit(split),
                workers=workers,
                report=report,
            )
        from bench.data.transforms import open_transforms

        return open_transforms(
            root,
            split,
            image_size=config.image_size,
            neighbours=config.neighbours,
            workers=workers,
            report=report,
        )


class First:
    """The first scenes of a split; all else is as it was."""

    def __init__(self, whole: MultiViewSplit, count: int, name: str) -> None:
        """`count`: at most as many as `whole` has. `name`: the split's."""
        self._count = count
        self.sample_name, self.load = whole.sample_name, whole.load
        self.choose, self.choose_evaluation = whole.choose, whole.choose_evaluation
        self.notices: tuple[str, ...] = (
            *getattr(whole, "notices", ()),
            f"{name}: only the first {count} of {len(whole)} scenes are used",
        )
        if hasattr(whole, "fingerprint"):
            self.fingerprint = f"{whole.fingerprint}, first {count}"
        if hasattr(whole, "scene_keys"):
            self.scene_keys: Sequence[str] = whole.scene_keys[:count]

    def __len__(self) -> int:
        """Number of scenes."""
        return self._count


def in_frame(
    frame: str, inputs: np.ndarray, targets: np.ndarray, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Poses [B, Vi, 4, 4] and [B, Vt, 4, 4] in the frame that ``task.frame`` names; masked inputs [B, Vi] do not shape it."""
    if frame == "none":
        return inputs, targets
    reference, valid = inputs, mask
    if frame == "sample":
        reference = np.concatenate([inputs, targets], axis=1)
        valid = None if mask is None else np.pad(mask, ((0, 0), (0, targets.shape[1])), constant_values=True)
    found = SceneFrame.of(reference, valid)
    return found.apply(inputs), found.apply(targets)


def misfit(field: str, error: Exception, name: str) -> UserError:
    """What data say of views that do not fit, under the option that asked for them; they do not know which one it was."""
    found = re.match(r"task\.(\w+): ", str(error))
    told, line = (found[1], str(error)[found.end() :]) if found else ("", str(error))
    if (told, field) == ("target_views", "input_views"):
        field = told if name == "train" else "eval_targets"
    return UserError(f"task.{field}: {line} in {name}")


def check_disjoint(splits: Mapping[str, MultiViewSplit]) -> None:
    """Refuse splits that share a scene, where they can tell.

    Raises:
        UserError: two do; names both and the first few scenes.
    """
    keys = {name: split.scene_keys for name, split in splits.items() if hasattr(split, "scene_keys")}
    for one, other in itertools.combinations(keys, 2):
        if shared := sorted(set(keys[one]) & set(keys[other])):
            named = ", ".join(shared[:3]) + ", .." * (len(shared) > 3)
            raise UserError(
                f"task.data_path: {len(shared)} scenes are in both {one} and {other} ({named}); take them out of one"
            )


def check_split(name: str, split: MultiViewSplit, config: NVSConfig) -> None:
    """Look at the first scene of a split: does it fit the options and keep the contract of `MultiViewSplit`?

    Raises:
        UserError: it does not; the line names the split.
    """
    first, side = np.zeros(1, np.int64), config.image_size
    lacking = [part for part in ("choose", "choose_evaluation", "load", "sample_name") if not hasattr(split, part)]
    if lacking:
        raise UserError(f"{name}: {type(split).__name__} lacks {', '.join(lacking)}; arrays go into an ArraySplit")
    try:
        if name == "train":
            inputs, _ = split.choose(first, first.astype(np.uint64), config.input_views, config.target_views)
        else:
            inputs, _ = split.choose_evaluation(first, config.input_views, config.eval_targets)
    except (ValueError, UserError) as error:
        raise misfit("input_views", error, name) from error
    rgb, c2w, intrinsics = split.load(first, inputs)
    if rgb.shape[2:] != (side, side, 3):
        raise UserError(f"task.image_size is {side}, but {name} has images of shape {rgb.shape[2:]}")
    views = inputs.shape[1]
    for what, array, shape, dtype in (
        ("rgb", rgb, (1, views, side, side, 3), np.uint8),
        ("c2w", c2w, (1, views, 4, 4), np.float32),
        ("intrinsics", intrinsics, (1, views, 4), np.float32),
    ):
        if array.shape != shape or array.dtype != dtype:
            raise UserError(
                f"{name}: load must give {what} as {np.dtype(dtype)} {list(shape)}, got {array.dtype} {list(array.shape)}"
            )
    check_poses(c2w[0], lambda view: f"{name}: the pose of {split.sample_name(0, int(inputs[0, view]))}")
