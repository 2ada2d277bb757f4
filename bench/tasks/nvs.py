"""Novel view synthesis: given a few posed images of a scene, paint what other cameras see.

Fields of a batch (B scenes, Vi input views, Vt target views, H = W = ``image_size``):

=====================  ====================  ==========================================================
input_images           [B, Vi, 3, H, W]      RGB, uint8 on the host, fp32 in 0..1 for architectures
input_c2w              [B, Vi, 4, 4]         camera to world, OpenCV (x right, y down, z forward), fp32
input_intrinsics       [B, Vi, 4]            fx, fy, cx, cy in pixels, fp32
input_mask             [B, Vi]               bool, True: the view is there; only with ``min_input_views``
target_c2w             [B, Vt, 4, 4]
target_intrinsics      [B, Vt, 4]
target_images          [B, Vt, 3, H, W]      seen by the loss and the metrics only
=====================  ====================  ==========================================================

An architecture returns ``{"images": [B, Vt, 3, H, W]}`` in 0..1. Poses stand in the frame that ``task.frame`` names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.aggregates import summarise
from bench.contracts import Metric, SampleRecord, Symmetry
from bench.errors import UserError
from bench.metrics import fidelity, image, perceptual
from bench.tasks import nvs_batches as batches
from bench.tasks.leakage import evaluation_notice, training_notices
from bench.tasks.nvs_batches import Chosen
from bench.tasks.nvs_config import LOSS_WEIGHTS, OWN_FRAME, PRESETS, NVSConfig
from bench.tasks.nvs_data import Source, check_disjoint, check_split, misfit
from bench.tasks.nvs_references import Reference, references_of
from bench.tasks.views import mask_inputs, mix_inputs, permute_input_views, scramble_masked_views

if TYPE_CHECKING:
    from torch import nn

    from bench.contracts import Batch
    from bench.data.multiview import MultiViewSplit
    from bench.data.scenes.cache import Progress

__all__ = ["PRESETS", "NVSConfig", "NovelViewSynthesis"]

QUICK_SCENES = 32
"""Scenes of a split that the cheap evaluation inside a run scores: its first ones."""

PICTURE_SCENES = 4
"""Rows of the qualitative grid: the first scenes of the test split."""

FINAL_SPLITS = ("test", "ood")
"""Splits that are also painted from ``extra_input_views``."""


class NovelViewSynthesis:
    """The task ``nvs`` of `bench.contracts.Task`, on any `MultiViewSplit`."""

    name = "nvs"
    config_class = NVSConfig
    input_fields: tuple[str, ...] = (
        "input_images",
        "input_c2w",
        "input_intrinsics",
        "target_c2w",
        "target_intrinsics",
    )
    target_fields = ("target_images",)
    symmetries: tuple[Symmetry, ...] = (Symmetry("order of the input views", permute_input_views),)

    def __init__(
        self, config: NVSConfig, cache_dir: Path, open_split: Callable[[str], MultiViewSplit] | None = None
    ) -> None:
        """Score the metrics that `config` asks for on data kept under `cache_dir`.

        Args:
            config: the options.
            cache_dir: where rendered scenes and indices of data on disk are kept and looked for.
            open_split: gives the data of a split by its name; by default what ``config.data`` says.

        Raises:
            UserError: a perceptual metric that this machine cannot compute.
        """
        kind, notice = perceptual.resolve(config.perceptual, config.image_size)
        weight = config.perceptual_loss_weight
        if config.perceptual_loss != "none" and weight is None:
            weight = LOSS_WEIGHTS[config.data]
        frame = OWN_FRAME[config.data] if config.frame == "auto" else config.frame
        # What it came to: a resumed comparison learns and scores the same.
        self.config = config = replace(config, perceptual=kind, perceptual_loss_weight=weight, frame=frame)
        self.evaluation_batch = config.eval_batch
        self._source, self._open = Source(config, Path(cache_dir)), open_split
        self._renders = open_split is None and config.data == "scenes"
        self._splits: dict[str, MultiViewSplit] = {}
        self._notices = [*filter(None, [notice]), *training_notices(config)]
        self._perceptual = None if kind == "none" else perceptual.PerceptualDistance(kind)
        self._fidelity = None
        if config.fidelity != "none":
            self._fidelity = fidelity.FeatureExtractor(config.fidelity, config.fidelity_weights)
        self.metrics = self._metrics(None)
        if config.varies_inputs:
            self.input_fields = (*self.input_fields, "input_mask")
            self.symmetries = (*self.symmetries, Symmetry("what masked input views hold", scramble_masked_views))

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that must stand under the table: of the options, and of the splits that were opened so far."""
        return tuple(dict.fromkeys(self._notices))

    # ------------------------------------------------------------------------------------------------------- data

    def prepare(self, progress: Any = None, workers: int | None = None) -> None:
        """Render what is missing of the scenes, open data on disk, and check the weights of the perceptual networks.

        Idempotent, resumable, safe under two processes.
        """
        if self._perceptual is not None:
            self._perceptual.prepare()
        if self._loss_network is not None:
            self._loss_network.prepare()
        if self._fidelity is not None:
            self._fidelity.prepare()
        if self._renders:
            self._source.render(progress, workers)
            if self._fidelity is not None:
                self._split("test")  # its size says which distances there are
        else:
            for split in ("train", "test"):
                self._split(split, progress)

    def fingerprints(self) -> dict[str, str]:
        """Digests of the data of the splits that were opened so far, wherever they lie; of data that have one."""
        return {name: split.fingerprint for name, split in self._splits.items() if hasattr(split, "fingerprint")}

    def pretrained_parts(self) -> list[dict[str, Any]]:
        """Weights trained elsewhere that the training loss reads and that no package of this environment holds."""
        return [self._loss_network.identity()] if self.config.perceptual_loss == "gs-lrm" else []

    def training_size(self) -> int:
        """Number of training scenes."""
        if self._renders:
            return self.config.scene_spec.train_scenes
        return len(self._split("train"))

    def collate(self, indices: np.ndarray, draws: np.ndarray) -> Batch:
        """Training scenes `indices` [B] with the views that `draws` [B] uint64 chooses, on the host.

        Input and target views of a sample are disjoint unless ``target_has_input``. Images keep the memory layout of the
        files ([B, V, H, W, 3]) under the shape that everyone else sees ([B, V, 3, H, W]), so that nothing is transposed
        here. Masked input views repeat the first one: what a sample may not see is not in its batch.
        """
        split, config, mask = self._split("train"), self.config, None
        inputs, targets = split.choose(indices, draws, config.input_views, config.target_views)
        if config.target_has_input:
            targets = mix_inputs(draws, inputs, targets)
        if config.varies_inputs:
            mask = mask_inputs(draws, config.fewest_input_views, config.input_views)
            inputs = np.where(mask, inputs, inputs[:, :1])
        return batches.gather(config, split, Chosen(indices, inputs, targets), mask)

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
        """Host batch of the shapes of training, of synthetic content; every input view is there."""
        batch = self.synthetic(batch_size, seed=0)
        if "input_mask" in batch:
            batch["input_mask"].fill_(True)
        return batch

    def synthetic(self, batch_size: int, seed: int) -> Batch:
        """Host batch like `collate`'s, of random images and of cameras that look at the origin; reads no data.

        Where the number of inputs varies, the first sample has as few as can be.
        """
        return batches.synthetic(self.config, batch_size, seed)

    def edge_cases(self, batch_size: int) -> dict[str, Batch]:
        """Legal but degenerate host batches, by name."""
        return batches.edge_cases(self.config, batch_size)

    # ----------------------------------------------------------------------------------------------- loss and score

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean squared error over all target pixels, plus the weighted perceptual distance if there is one; fp32.

        Raises:
            ValueError: the outputs lack ``images``, or its shape is not that of the targets.
        """
        target = batch["target_images"]
        prediction = _images(outputs, target.shape).float()
        loss = torch.nn.functional.mse_loss(prediction, target)
        if self._loss_network is not None:
            distance = self._loss_network(prediction.flatten(0, 1), target.flatten(0, 1)).mean()
            loss = loss + self.config.perceptual_loss_weight * distance
        return loss

    @cached_property
    def _loss_network(self) -> Any:
        """What the perceptual loss is read from, None without one; built late, for plans are made without weights."""
        kind, weights = self.config.perceptual_loss, self.config.perceptual_loss_weights
        if kind == "none":
            return None
        if kind != "gs-lrm":
            return perceptual.PerceptualDistance(kind)
        if weights is None:
            raise UserError(
                "task.perceptual_loss_weights is not set: give the file of the VGG-19 that gs-lrm reads, or set "
                "task.perceptual_loss: st-lpips, whose weights are installed"
            )
        from bench.metrics.gs_lrm import PerceptualLoss

        return PerceptualLoss(Path(weights).expanduser())

    def evaluate(
        self, model: nn.Module, device: torch.device, *, split: str = "test", quick: bool = False
    ) -> list[SampleRecord]:
        """Score `model` on `split`: one record for each of the ``eval_targets`` of each scene.

        The views of a scene are those of the data's own protocol, for embedded scenes a fixed function of the scene's
        number. `quick` scores the first `QUICK_SCENES` scenes by PSNR only. Otherwise the targets of `FINAL_SPLITS` are
        also painted from each of ``extra_input_views``.

        Raises:
            FloatingPointError: the model painted a value that is not finite; names the first such sample.
        """

        def paint(views: Chosen) -> tuple[Tensor, Tensor]:
            moved = self.transfer(batches.gather(self.config, self._split(split), views), device)
            target = moved["target_images"]
            return _images(model(**{name: moved[name] for name in self.input_fields}), target.shape).float(), target

        return self._records(split, paint, quick)

    def references(self, split: str = "test", device: torch.device | None = None) -> list[dict[str, Any]]:
        """Predictors that learn nothing, scored like a model on the same samples; the depth warp where there is depth.

        They are painted on the host and scored on `device`, by default there too: a perceptual metric of many thousand
        images takes hours on a CPU.

        Returns:
            For each: ``name``, ``label``, ``metrics`` (the mean of each) and ``records``.
        """
        data, device = self._split(split), device or torch.device("cpu")
        result = []
        for reference in references_of(data):

            def paint(views: Chosen, reference: Reference = reference) -> tuple[Tensor, Tensor]:
                painted, target = reference.paint(data, views)
                return painted.to(device), target.to(device)

            records = self._records(split, paint, quick=False)
            means = summarise(self.metrics, records)
            result.append({"name": reference.name, "label": reference.label, "metrics": means, "records": records})
        return result

    def pictures(self, models: Mapping[str, nn.Module], device: torch.device) -> np.ndarray | None:
        """Grid of the first test scenes: inputs, ground truth and what each model paints, uint8 [H, W, 3]."""
        from bench.tasks.grid import labelled_grid

        views = next(self._evaluation_views("test", PICTURE_SCENES, batch_size=PICTURE_SCENES))
        moved = self.transfer(batches.gather(self.config, self._split("test"), views), device)
        inputs = {name: moved[name] for name in self.input_fields}
        columns = {f"input {i + 1}": moved["input_images"][:, i] for i in range(self.config.input_views)}
        columns["ground truth"] = moved["target_images"][:, 0]
        with torch.inference_mode():
            for name, model in models.items():
                columns[name] = _images(model(**inputs), moved["target_images"].shape)[:, 0].float()
        return labelled_grid(columns)

    # ------------------------------------------------------------------------------------------------- evaluation

    def _metrics(self, images: int | None) -> tuple[Metric, ...]:
        """What is scored, of so many test images; None where that is not known yet."""
        found = [image.PSNR, image.SSIM]
        if self._perceptual is not None:
            found.append(perceptual.metric(self._perceptual.kind))
        if self._fidelity is not None:
            found += fidelity.metrics(self._fidelity.kind, images)
        return (*found, *map(_psnr_from, self.config.extra_input_views))

    def _records(self, split: str, paint: Callable[[Chosen], tuple[Tensor, Tensor]], quick: bool) -> list[SampleRecord]:
        """Records of what `paint` makes of the evaluation's views: prediction and target, both [B, T, 3, H, W]."""

        def scored(views: Chosen, quick: bool) -> list[SampleRecord]:
            prediction, target = paint(views)
            return self._score(self._names(split, views), prediction.flatten(0, 1), target.flatten(0, 1), quick)

        limit = QUICK_SCENES if quick else None
        records = [record for views in self._evaluation_views(split, limit) for record in scored(views, quick)]
        if not quick and split in FINAL_SPLITS:
            for count in self.config.extra_input_views:
                # No more input views in a batch than usual, so that it fits the memory that evaluation was probed for.
                step = max(1, self.config.eval_batch * self.config.input_views // max(count, self.config.input_views))
                others = (r for views in self._evaluation_views(split, None, count, step) for r in scored(views, True))
                for record, other in zip(records, others, strict=True):
                    record[_psnr_from(count).name] = other["psnr"]
        return records

    def _score(self, names: Sequence[str], prediction: Tensor, target: Tensor, quick: bool) -> list[SampleRecord]:
        """Records of N samples from their images, both [N, 3, H, W]."""
        broken = ~prediction.isfinite().flatten(1).all(dim=1)
        if broken.any():
            raise FloatingPointError(f"{names[int(broken.int().argmax())]}: the prediction is not finite")
        columns: dict[str, Sequence[Any]] = {"psnr": image.psnr(prediction, target).tolist()}
        if not quick:
            columns["ssim"] = image.ssim(prediction, target).tolist()
            if self._perceptual is not None:
                distances = self._perceptual(prediction, target)
                columns[perceptual.metric(self._perceptual.kind).name] = distances.double().tolist()
            if self._fidelity is not None:
                columns[fidelity.record_key(self._fidelity.kind)] = self._fidelity.records(prediction, target)
        values = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return [{"sample": name, **value} for name, value in zip(names, values, strict=True)]

    def _evaluation_views(
        self, split: str, limit: int | None = None, input_views: int | None = None, batch_size: int | None = None
    ) -> Iterator[Chosen]:
        """The views of the first `limit` scenes, an evaluation batch at a time."""
        total = len(self._split(split))
        count, step = total if limit is None else min(limit, total), batch_size or self.config.eval_batch
        for start in range(0, count, step):
            chosen = np.arange(start, min(start + step, count))
            yield self._evaluated(self._split(split), split, chosen, input_views or self.config.input_views)

    def _evaluated(self, data: MultiViewSplit, split: str, chosen: np.ndarray, input_views: int) -> Chosen:
        """The evaluation's views of scenes `chosen` [B] with so many inputs.

        The targets are those that the data gives beside the largest number of inputs that is scored: some data chooses
        them among what is left of a scene, and every number of inputs must paint the same ones.
        """
        config = self.config
        most = max((config.input_views, *config.extra_input_views)) if split in FINAL_SPLITS else config.input_views
        inputs, targets = data.choose_evaluation(chosen, most, config.eval_targets)
        if input_views != most:
            inputs, _ = data.choose_evaluation(chosen, input_views, config.eval_targets)
        return Chosen(chosen, inputs, targets)

    def _names(self, split: str, views: Chosen) -> list[str]:
        """Sample names, scene by scene: ``test/0007/05`` is view 5 of test scene 7."""
        data = self._split(split)
        return [
            f"{split}/{data.sample_name(int(scene), int(view))}"
            for scene, row in zip(views.scenes, views.targets, strict=True)
            for view in row
        ]

    # ------------------------------------------------------------------------------------------------------ splits

    def _split(self, split: str, report: Progress | None = None) -> MultiViewSplit:
        if split not in self._splits:
            opened = self._open(split) if self._open else self._source.open(split, report)
            check_split(split, opened, self.config)
            lines = list(getattr(opened, "notices", ()))
            if split in FINAL_SPLITS:
                for count in (self.config.input_views, *self.config.extra_input_views):
                    try:
                        views = self._evaluated(opened, split, np.arange(len(opened)), count)
                    except (ValueError, UserError) as error:
                        field = "extra_input_views" if self.config.extra_input_views else "input_views"
                        raise misfit(field, error, split) from error
                    lines += evaluation_notice(split, views.inputs, views.targets)
                if split == "test":
                    self.metrics = self._metrics(views.targets.size)
            check_disjoint({**self._splits, split: opened})
            self._notices += lines
            self._splits[split] = opened
        return self._splits[split]


def _psnr_from(count: int) -> Metric:
    """How to read the PSNR from another number of input views."""
    inputs = f"{count} input{'s' * (count > 1)}"
    note = f"of the same targets as PSNR, painted from {inputs}"
    return image.PSNR._replace(name=f"psnr_{count}in", label=f"PSNR, {inputs} (dB)", note=note)


def _images(outputs: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """``outputs["images"]``, or a ValueError that says what is wrong with it."""
    if "images" not in outputs:
        raise ValueError(f"forward must return the key 'images', got {', '.join(outputs) or 'nothing'}")
    if outputs["images"].shape != shape:
        raise ValueError(f"images must be [B, Vt, 3, H, W] = {list(shape)}, got {list(outputs['images'].shape)}")
    return outputs["images"]
