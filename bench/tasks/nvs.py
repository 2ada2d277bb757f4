"""Novel view synthesis: given a few posed images of a scene, paint what other cameras see.

Fields of a batch (B scenes, Vi input views, Vt target views, H = W = ``image_size``):

=====================  ====================  ==========================================================
input_images           [B, Vi, 3, H, W]      RGB, uint8 on the host, fp32 in 0..1 for architectures
input_c2w              [B, Vi, 4, 4]         camera to world, OpenCV (x right, y down, z forward), fp32
input_intrinsics       [B, Vi, 4]            fx, fy, cx, cy in pixels, fp32
target_c2w             [B, Vt, 4, 4]
target_intrinsics      [B, Vt, 4]
target_images          [B, Vt, 3, H, W]      seen by the loss and the metrics only
=====================  ====================  ==========================================================

An architecture returns ``{"images": [B, Vt, 3, H, W]}`` in 0..1. Poses are given as they are in the data: the embedded
scenes stand in one bounded frame around the origin, so nothing needs to be centred or scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bench.contracts import Metric, SampleRecord, Symmetry
from bench.data import scenes
from bench.data.scenes import baselines
from bench.errors import UserError
from bench.metrics import image, perceptual
from bench.tasks.nvs_config import PRESETS, NVSConfig
from bench.tasks.views import choose_views, permute_input_views, synthetic_views

if TYPE_CHECKING:
    from torch import nn

    from bench.contracts import Batch
    from bench.data.scenes import ShardedArray

__all__ = ["PRESETS", "MultiViewSplit", "NVSConfig", "NovelViewSynthesis"]

QUICK_SCENES = 32
"""Scenes of a split that the cheap evaluation inside a run scores: its first ones."""

PICTURE_SCENES = 4
"""Rows of the qualitative grid: the first scenes of the test split."""

REFERENCES = {
    "mean_colour": ("mean-colour", "mean colour of the inputs"),
    "nearest_view": ("nearest-view", "nearest input view"),
    "depth_warp": ("depth-warp", "inputs warped by true depth (oracle: sees the depth)"),
}
"""Name and label of each predictor that learns nothing."""


class MultiViewSplit(Protocol):
    """Posed images of one split: what the task needs of its data, so that other data can take the scenes' place.

    Each array is read as ``array[scene, view]`` with two integer arrays that broadcast against each other.
    """

    @property
    def rgb(self) -> ShardedArray | np.ndarray:
        """[N, V, H, W, 3] uint8."""
        ...

    @property
    def c2w(self) -> np.ndarray:
        """[N, V, 4, 4] fp32, OpenCV camera to world."""
        ...

    @property
    def intrinsics(self) -> np.ndarray:
        """[N, V, 4] fp32: fx, fy, cx, cy in pixels."""
        ...


class NovelViewSynthesis:
    """The task ``nvs`` of `bench.contracts.Task`, on the embedded scenes."""

    name = "nvs"
    config_class = NVSConfig
    input_fields = ("input_images", "input_c2w", "input_intrinsics", "target_c2w", "target_intrinsics")
    target_fields = ("target_images",)
    symmetries = (Symmetry("order of the input views", permute_input_views),)

    def __init__(
        self, config: NVSConfig, cache_dir: Path, open_split: Callable[[str], MultiViewSplit] | None = None
    ) -> None:
        """Score the metrics that `config` asks for on data kept under `cache_dir`.

        Args:
            config: the options.
            cache_dir: where rendered scenes are kept and looked for.
            open_split: gives the data of a split by its name; by default the embedded scenes.

        Raises:
            UserError: a perceptual metric that this machine cannot compute.
        """
        self.config, self.cache_dir = config, Path(cache_dir)
        self.evaluation_batch = config.eval_batch
        self._open = open_split or self._open_scenes
        self._renders = open_split is None
        self._splits: dict[str, MultiViewSplit] = {}
        kind, notice = perceptual.resolve(config.perceptual, config.image_size)
        self.config = replace(config, perceptual=kind)  # what it came to: a resumed comparison scores the same
        self.notices: tuple[str, ...] = (notice,) if notice else ()
        """Lines that must stand under the table."""
        self._perceptual = None if kind == "none" else perceptual.PerceptualDistance(kind)
        self.metrics: tuple[Metric, ...] = (image.PSNR, image.SSIM)
        if self._perceptual is not None:
            self.metrics += (perceptual.metric(kind),)

    # ------------------------------------------------------------------------------------------------------- data

    def prepare(self, progress: Any = None, workers: int | None = None) -> None:
        """Render what is missing and check the perceptual metric's weights.

        Idempotent, resumable, safe under two processes.
        """
        if self._perceptual is not None:
            self._perceptual.prepare()
        if self._renders:
            splits = ("train", "validation", "test") + (("ood",) if self.config.ood else ())
            scenes.prepare(self.config.scene_spec, splits, self.cache_dir, workers=workers, progress=progress)

    def training_size(self) -> int:
        """Number of training scenes."""
        return self.config.train_scenes if self._renders else self._split("train").rgb.shape[0]

    def collate(self, indices: np.ndarray, draws: np.ndarray) -> Batch:
        """Training scenes `indices` [B] with the views that `draws` [B] uint64 chooses, on the host.

        Input and target views of a sample are disjoint unless ``target_has_input``. Images keep the memory layout of the
        files ([B, V, H, W, 3]) under the shape that everyone else sees ([B, V, 3, H, W]), so that nothing is transposed
        here.
        """
        split, config = self._split("train"), self.config
        inputs, targets = choose_views(
            draws, split.rgb.shape[1], config.input_views, config.target_views, overlap=config.target_has_input
        )
        return _gather(split, indices, inputs, targets)

    def transfer(self, batch: Batch, device: torch.device) -> Batch:
        """Move to `device`; images become fp32 in 0..1, contiguous. On CUDA they cross as pinned bytes, asynchronously."""
        moved = {}
        for name, value in batch.items():
            if device.type == "cuda" and value.device.type == "cpu" and not value.is_pinned():
                value = value.pin_memory()
            value = value.to(device, non_blocking=True)
            if value.dtype == torch.uint8:
                value = torch.empty(value.shape, dtype=torch.float32, device=device).copy_(value).div_(255)
            moved[name] = value
        return moved

    def worst_case(self, batch_size: int) -> Batch:
        """Host batch of the shapes of training, of synthetic content."""
        return self.synthetic(batch_size, seed=0)

    def synthetic(self, batch_size: int, seed: int) -> Batch:
        """Host batch like `collate`'s, of random images and of cameras that look at the origin; reads no data."""
        generator = np.random.default_rng(seed)
        batch: Batch = {}
        for role, views in (("input", self.config.input_views), ("target", self.config.target_views)):
            _add(batch, role, *synthetic_views(generator, batch_size, views, self.config.image_size))
        return batch

    def edge_cases(self, batch_size: int) -> dict[str, Batch]:
        """Legal but degenerate host batches, by name: black images, white images, all cameras at one place."""
        black, white, cameras = (self.synthetic(batch_size, seed) for seed in (1, 2, 3))
        for batch, value in ((black, 0), (white, 255)):
            for name in ("input_images", "target_images"):
                batch[name].fill_(value)
        for name in ("input_c2w", "target_c2w"):
            cameras[name].copy_(cameras["input_c2w"][:, :1].clone().expand_as(cameras[name]))
        return {"black images": black, "white images": white, "identical cameras": cameras}

    # ----------------------------------------------------------------------------------------------- loss and score

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean squared error over all target pixels, plus the weighted perceptual distance if there is one; fp32.

        Raises:
            ValueError: the outputs lack ``images``, or its shape is not that of the targets.
        """
        target = batch["target_images"]
        prediction = _images(outputs, target.shape).float()
        loss = torch.nn.functional.mse_loss(prediction, target)
        weight = self.config.perceptual_loss_weight
        if weight > 0 and self._perceptual is not None:
            loss = loss + weight * self._perceptual(prediction.flatten(0, 1), target.flatten(0, 1)).mean()
        return loss

    def evaluate(
        self, model: nn.Module, device: torch.device, *, split: str = "test", quick: bool = False
    ) -> list[SampleRecord]:
        """Score `model` on `split`: one record for each of the ``eval_targets`` of each scene.

        The views of a scene are a fixed function of its number, drawn as in training. `quick` scores the first
        `QUICK_SCENES` scenes by PSNR only.

        Raises:
            FloatingPointError: the model painted a value that is not finite; names the first such sample.
        """
        records: list[SampleRecord] = []
        for names, batch in self._evaluation(split, QUICK_SCENES if quick else None):
            moved = self.transfer(batch, device)
            target = moved["target_images"]
            prediction = _images(model(**{name: moved[name] for name in self.input_fields}), target.shape).float()
            records += self._score(names, prediction.flatten(0, 1), target.flatten(0, 1), quick)
        return records

    def references(self, split: str = "test") -> list[dict[str, Any]]:
        """Predictors that learn nothing, scored like a model on the same samples. Needs a split with ``depth``.

        Returns:
            For each: ``name``, ``label``, ``metrics`` (the mean of each) and ``records``.
        """
        data = self._split(split)
        result = []
        for predict in (baselines.mean_colour, baselines.nearest_view, baselines.depth_warp):
            records: list[SampleRecord] = []
            for chosen, inputs, targets in self._evaluation_views(split, None):
                painted = np.stack(
                    [_predict(predict, data, *views) for views in zip(chosen, inputs, targets, strict=True)]
                )
                batch = self.transfer(
                    {
                        "prediction": _channels_second(painted),
                        "target": _channels_second(data.rgb[chosen[:, None], targets]),
                    },
                    torch.device("cpu"),
                )
                names = _names(split, chosen, targets)
                records += self._score(names, batch["prediction"].flatten(0, 1), batch["target"].flatten(0, 1), False)
            name, label = REFERENCES[predict.__name__]
            means = {m.name: float(np.mean([record[m.name] for record in records])) for m in self.metrics}
            result.append({"name": name, "label": label, "metrics": means, "records": records})
        return result

    def pictures(self, models: Mapping[str, nn.Module], device: torch.device) -> np.ndarray | None:
        """Grid of the first test scenes: inputs, ground truth and what each model paints, uint8 [H, W, 3]."""
        from bench.tasks.grid import labelled_grid

        _, batch = next(iter(self._evaluation("test", PICTURE_SCENES, batch_size=PICTURE_SCENES)))
        moved = self.transfer(batch, device)
        inputs = {name: moved[name] for name in self.input_fields}
        columns = {f"input {i + 1}": moved["input_images"][:, i] for i in range(self.config.input_views)}
        columns["ground truth"] = moved["target_images"][:, 0]
        with torch.inference_mode():
            for name, model in models.items():
                columns[name] = _images(model(**inputs), moved["target_images"].shape)[:, 0].float()
        return labelled_grid(columns)

    def _score(self, names: Sequence[str], prediction: Tensor, target: Tensor, quick: bool) -> list[SampleRecord]:
        """Records of N samples from their images, both [N, 3, H, W]."""
        broken = ~prediction.isfinite().flatten(1).all(dim=1)
        if broken.any():
            raise FloatingPointError(f"{names[int(broken.int().argmax())]}: the prediction is not finite")
        columns: dict[str, Sequence[float]] = {"psnr": image.psnr(prediction, target).tolist()}
        if not quick:
            columns["ssim"] = image.ssim(prediction, target).tolist()
            if self._perceptual is not None:
                columns[self.metrics[-1].name] = self._perceptual(prediction, target).double().tolist()
        values = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return [{"sample": name, **value} for name, value in zip(names, values, strict=True)]

    def _evaluation(
        self, split: str, limit: int | None, batch_size: int | None = None
    ) -> Iterator[tuple[list[str], Batch]]:
        """Names of the samples and host batch, for each evaluation batch of the first `limit` scenes."""
        for chosen, inputs, targets in self._evaluation_views(split, limit, batch_size):
            yield _names(split, chosen, targets), _gather(self._split(split), chosen, inputs, targets)

    def _evaluation_views(
        self, split: str, limit: int | None, batch_size: int | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Scene numbers [B] and their views; a scene's number is its draw, so that every run sees the same views."""
        scene_count, views = self._split(split).rgb.shape[:2]
        count = scene_count if limit is None else min(limit, scene_count)
        step = batch_size or self.config.eval_batch
        for start in range(0, count, step):
            chosen = np.arange(start, min(start + step, count))
            yield (
                chosen,
                *choose_views(chosen.astype(np.uint64), views, self.config.input_views, self.config.eval_targets),
            )

    def _split(self, split: str) -> MultiViewSplit:
        if split not in self._splits:
            opened, config = self._open(split), self.config
            side, targets = config.image_size, config.target_views if split == "train" else config.eval_targets
            if opened.rgb.shape[2:] != (side, side, 3):
                raise UserError(f"task.image_size is {side}, but {split} has images of shape {opened.rgb.shape[2:]}")
            if opened.rgb.shape[1] < config.input_views + targets:
                raise UserError(
                    f"task.input_views: {config.input_views} inputs and {targets} targets do not fit the "
                    f"{opened.rgb.shape[1]} views of a scene in {split}"
                )
            self._splits[split] = opened
        return self._splits[split]

    def _open_scenes(self, split: str) -> MultiViewSplit:
        if split == "ood" and not self.config.ood:
            raise UserError("split ood is not rendered: set task.ood: true")
        return scenes.open_split(self.config.scene_spec, split, self.cache_dir)


def _images(outputs: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """``outputs["images"]``, or a ValueError that says what is wrong with it."""
    if "images" not in outputs:
        raise ValueError(f"forward must return the key 'images', got {', '.join(outputs) or 'nothing'}")
    if outputs["images"].shape != shape:
        raise ValueError(f"images must be [B, Vt, 3, H, W] = {list(shape)}, got {list(outputs['images'].shape)}")
    return outputs["images"]


def _names(split: str, chosen: np.ndarray, targets: np.ndarray) -> list[str]:
    """Sample names, scene by scene: ``test/0007/05`` is view 5 of test scene 7."""
    return [f"{split}/{scene:04d}/{view:02d}" for scene, row in zip(chosen, targets, strict=True) for view in row]


def _gather(split: MultiViewSplit, scene: np.ndarray, inputs: np.ndarray, targets: np.ndarray) -> Batch:
    """Host batch of scenes `scene` [B] seen by views `inputs` [B, Vi] and `targets` [B, Vt]."""
    batch: Batch = {}
    for role, views in (("input", inputs), ("target", targets)):
        chosen = (scene[:, None], views)
        _add(batch, role, split.rgb[chosen], split.c2w[chosen], split.intrinsics[chosen])
    return batch


def _add(batch: Batch, role: str, images: np.ndarray, c2w: np.ndarray, intrinsics: np.ndarray) -> None:
    """Put the views of a role into the batch; `images` [B, v, H, W, 3] are seen as [B, v, 3, H, W], not copied."""
    batch[f"{role}_images"] = _channels_second(images)
    batch[f"{role}_c2w"], batch[f"{role}_intrinsics"] = torch.from_numpy(c2w), torch.from_numpy(intrinsics)


def _channels_second(images: np.ndarray) -> Tensor:
    """[B, V, H, W, 3] seen as [B, V, 3, H, W]; nothing is copied."""
    return torch.from_numpy(images).movedim(-1, 2)


def _predict(
    predict: Callable[..., np.ndarray], split: Any, scene: int, inputs: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """What a reference paints of one scene, uint8 [Vt, H, W, 3]."""
    known = baselines.Inputs(*(getattr(split, name)[scene, inputs] for name in ("rgb", "depth", "c2w", "intrinsics")))
    return predict(known, split.c2w[scene, targets], split.intrinsics[scene, targets])
