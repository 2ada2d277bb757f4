"""Masked image modelling: given a few patches of an image, paint the others.

Fields of a batch (B images, L = (``image_size`` / ``patch_size``)^2 patches, H = W = ``image_size``):

=============  ==============  =======================================================================================
images         [B, 3, H, W]    fp32, normalised by ImageNet's mean and deviation; masked patches are blanked with 0
noise          [B, L]          fp32 in 0..1 without ties: the patches of least noise are visible, floor(L (1 - mask_ratio))
target_images  [B, 3, H, W]    the whole images, normalised; seen by the loss and the metrics only
=============  ==============  =======================================================================================

An architecture returns ``{"prediction", "mask"}``: mask [B, L] fp32, 1 on the patches that it predicts; prediction
[B, L, p * p * 3] of all patches, or [B, M, p * p * 3] of the M predicted ones in raster order, each patch (row, column,
channel) in normalised units, under ``norm_pix_loss`` less its own mean and over its own deviation. Evaluation asks for all
masked patches (``predict_all=True``) where forward knows the argument.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.contracts import Metric, SampleRecord, Symmetry
from bench.data.draws import of_name
from bench.errors import UserError
from bench.metrics import masked, probe
from bench.tasks import masked_image_batches as batches
from bench.tasks import masked_image_probes as probes
from bench.tasks.masked_image_config import OWN_AUGMENT, PRESETS, MaskedImageConfig
from bench.tasks.masked_image_data import Source, steps
from bench.tasks.masked_image_references import FEATURES, REFERENCES, Reference

if TYPE_CHECKING:
    from torch import nn

    from bench.contracts import Batch
    from bench.data.cache_folder import Progress
    from bench.tasks.masked_image_data import ImageSplit
    from bench.tasks.masked_image_probes import Features

__all__ = ["PRESETS", "MaskedImage", "MaskedImageConfig"]

QUICK_IMAGES = 128
"""Images of a split that the cheap evaluation inside a run scores: its first ones."""

PICTURE_IMAGES = 4
"""Rows of the qualitative grid: the first images of the test split."""

PROBED_SPLIT = "test"
"""Split on which frozen features are probed."""


class MaskedImage:
    """The task ``masked-image`` of `bench.contracts.Task`, on any `ImageSplit`."""

    name = "masked-image"
    config_class = MaskedImageConfig
    input_fields = ("images", "noise")
    target_fields = ("target_images",)

    def __init__(
        self, config: MaskedImageConfig, cache_dir: Path, open_split: Callable[[str], ImageSplit] | None = None
    ) -> None:
        """Mask and score images kept under `cache_dir` or where `config` says.

        Args:
            config: the options.
            cache_dir: where rendered scenes are kept and looked for.
            open_split: gives the images of a split by its name; by default what ``config.data`` says.
        """
        augment = OWN_AUGMENT[config.data] if config.augment == "auto" else config.augment
        # What it came to: a resumed comparison learns and scores the same.
        self.config = config = replace(config, augment=augment)
        self.evaluation_batch = config.eval_batch
        self._source, self._open = Source(config, Path(cache_dir)), open_split
        self._renders = open_split is None and config.data == "scenes"
        self._splits: dict[str, ImageSplit] = {}
        self.metrics: tuple[Metric, ...] = (masked.PSNR, masked.MSE)
        if config.norm_pix_loss:
            self.metrics = (masked.NORMALISED_MSE, masked.ORACLE_PSNR)
        headline, *others = self.metrics
        counts = f"of {config.patches} patches {config.kept} are visible and {config.patches - config.kept} masked"
        self.metrics = (headline._replace(note=f"{headline.note}; {counts}"), *others)
        if config.probe_images:
            self.metrics += (probe.KNN, probe.LINEAR)
        self.symmetries = (
            Symmetry(
                "order of the visible patches",
                lambda batch, generator: batches.shuffle_visible(batch, config.kept, generator),
            ),
        )

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that must stand under the table: of the splits that were opened so far."""
        lines = (line for split in self._splits.values() for line in getattr(split, "notices", ()))
        return tuple(dict.fromkeys(lines))

    # ------------------------------------------------------------------------------------------------------- data

    def prepare(self, progress: Any = None, workers: int | None = None) -> None:
        """Render what is missing of the scenes, or list the images of the folder.

        Idempotent, resumable, safe under two processes.
        """
        if self._renders:
            self._source.render(progress, workers)
        else:
            for split in ("train", "validation", "test"):
                self._split(split, progress)

    def fingerprints(self) -> dict[str, str]:
        """Digests of the data of the splits that were opened so far, wherever they lie; of data that have one."""
        return {name: split.fingerprint for name, split in self._splits.items() if hasattr(split, "fingerprint")}

    def training_size(self) -> int:
        """Number of training images."""
        limit = self.config.image_limit("train")
        return limit if self._renders and limit else len(self._split("train"))

    def collate(self, indices: np.ndarray, draws: np.ndarray) -> Batch:
        """Training images `indices` [B], whole, augmented and masked as `draws` [B] uint64 say, on the host."""
        return batches.host_batch(self.config, self._split("train").load(indices, draws, self.config.augment), draws)

    def transfer(self, batch: Batch, device: torch.device) -> Batch:
        """Move to `device`: images normalised, what architectures get of them without the masked patches."""
        return batches.to_device(self.config, batch, device)

    def worst_case(self, batch_size: int) -> Batch:
        """Host batch of the shapes of training, of synthetic content: all batches have the same."""
        return self.synthetic(batch_size, seed=0)

    def synthetic(self, batch_size: int, seed: int) -> Batch:
        """Host batch like `collate`'s, of random images; reads no data."""
        return batches.synthetic(self.config, batch_size, seed)

    def edge_cases(self, batch_size: int) -> dict[str, Batch]:
        """Legal but degenerate host batches, by name."""
        return batches.edge_cases(self.config, batch_size)

    # ----------------------------------------------------------------------------------------------- loss and score

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Squared error averaged over the pixels, then over the predicted patches of the batch; fp32.

        Raises:
            ValueError: the outputs lack ``prediction`` or ``mask``, or their shapes do not fit.
        """
        prediction, mask = self._outputs(outputs, len(batch["noise"]))
        return masked.loss(prediction, self._target(batch), mask)

    def evaluate(
        self, model: nn.Module, device: torch.device, *, split: str = "test", quick: bool = False
    ) -> list[SampleRecord]:
        """Score `model` on `split`: one record an image, masked as its name has it for good.

        `quick` scores the first `QUICK_IMAGES`. Otherwise, on `PROBED_SPLIT`, the model's ``features`` of whole images are
        probed too, if it has any.

        Raises:
            UserError: the model predicts other patches than the task masked.
            FloatingPointError: the model painted a value that is not finite; names the first such sample.
        """
        data, asked = self._split(split), _asked(model)

        def predict(batch: Batch) -> Tensor:
            return self._masked_prediction(model(images=batch["images"], noise=batch["noise"], **asked), batch)

        count = min(QUICK_IMAGES, len(data)) if quick else len(data)
        records = self._records(split, count, predict, device)
        features: Features | None = getattr(model, "features", None)
        if not quick and split == PROBED_SPLIT and self.config.probe_images and features is not None:
            self._add_probes(records, features, device)
        return records

    def references(self, split: str = "test", device: torch.device | None = None) -> list[dict[str, Any]]:
        """Predictors and features that learn nothing, scored like a model on the same samples.

        Under ``norm_pix_loss`` what a predictor paints is normalised patch by patch by its own statistics.

        Returns:
            For each: ``name``, ``label``, ``metrics`` (the mean of each) and ``records``.
        """
        device, count = device or torch.device("cpu"), len(self._split(split))
        result = []
        for reference in REFERENCES:

            def predict(batch: Batch, reference: Reference = reference) -> Tensor:
                hidden = batches.is_masked(batch["noise"], self.config.kept)
                painted = self._units(reference.fill(batch["images"], hidden, self.config.patch_size))
                return masked.take(painted, masked.places(hidden.float(), self._hidden))

            result.append(_entry(reference.name, reference.label, self._records(split, count, predict, device)))
        if self.config.probe_images and split == PROBED_SPLIT:
            result += self._probed_references(device)
        return result

    def pictures(self, models: Mapping[str, nn.Module], device: torch.device) -> np.ndarray | None:
        """Grid of the first test images: whole, masked, and as each model fills them, uint8 [H, W, 3].

        Visible patches are pasted. Under ``norm_pix_loss`` predictions are put back by the true statistics of each patch, and
        labels say so.
        """
        from bench.tasks.grid import labelled_grid

        batch = self._evaluation_batch("test", np.arange(min(PICTURE_IMAGES, len(self._split("test")))), device)
        hidden = batches.is_masked(batch["noise"], self.config.kept)
        patches = masked.patchify(batch["target_images"], self.config.patch_size)
        index = masked.places(hidden.float(), self._hidden)[..., None].expand(-1, -1, patches.shape[-1])
        columns = {"original": batch["target_images"], "masked": batch["images"]}
        with torch.inference_mode():
            for name, model in models.items():
                outputs = model(images=batch["images"], noise=batch["noise"], **_asked(model))
                painted = self._pixels(self._masked_prediction(outputs, batch), patches.gather(1, index))
                label = f"{name}, true statistics" if self.config.norm_pix_loss else name
                columns[label] = masked.unpatchify(patches.scatter(1, index, painted), self.config.patch_size)
        return labelled_grid({name: masked.denormalise(images) for name, images in columns.items()})

    # ------------------------------------------------------------------------------------------------- evaluation

    @torch.inference_mode()
    def _records(
        self, split: str, count: int, predict: Callable[[Batch], Tensor], device: torch.device
    ) -> list[SampleRecord]:
        """Records of the first `count` images by what `predict` makes of each batch: the masked patches [B, M, P]."""
        records, data = [], self._split(split)
        for indices in steps(count, self.config.eval_batch):
            batch = self._evaluation_batch(split, indices, device)
            names = [f"{split}/{data.sample_name(int(index))}" for index in indices]
            prediction = predict(batch).float()
            broken = ~prediction.isfinite().flatten(1).all(dim=1)
            if broken.any():
                raise FloatingPointError(f"{names[int(broken.int().argmax())]}: the prediction is not finite")
            records += self._score(names, prediction, batch)
        return records

    def _score(self, names: list[str], prediction: Tensor, batch: Batch) -> list[SampleRecord]:
        """Records of the images of a batch from their masked patches [B, M, P] in the target's units."""
        index = masked.places(batches.is_masked(batch["noise"], self.config.kept).float(), self._hidden)
        target = masked.take(self._target(batch), index)
        patches = masked.take(masked.patchify(batch["target_images"], self.config.patch_size), index)
        psnr = masked.psnr(self._pixels(prediction, patches), patches).tolist()
        error = (prediction - target).double().square().mean(dim=(1, 2)).tolist()
        name = masked.ORACLE_PSNR.name if self.config.norm_pix_loss else masked.PSNR.name
        return [
            {"sample": sample, name: decibels, masked.MSE.name: squared}
            for sample, decibels, squared in zip(names, psnr, error, strict=True)
        ]

    def _masked_prediction(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The masked patches [B, M, P] of outputs that must predict exactly these."""
        prediction, mask = self._outputs(outputs, len(batch["noise"]))
        hidden = batches.is_masked(batch["noise"], self.config.kept)
        if prediction.shape[1] not in (self.config.patches, self._hidden) or not torch.equal(mask > 0.5, hidden):
            raise UserError(
                f"task.mask_ratio {self.config.mask_ratio} and task.patch_size {self.config.patch_size} mask {self._hidden} of "
                f"{self.config.patches} patches, but the architecture's mask has {int(mask[0].sum())} ones, or others: give it "
                f"the same mask_ratio and patch_size, and let forward take predict_all=True where it trains on fewer"
            )
        if prediction.shape[1] == self._hidden:
            return prediction
        return masked.take(prediction, masked.places(mask, self._hidden))

    def _evaluation_batch(self, split: str, indices: np.ndarray, device: torch.device) -> Batch:
        """Images of a split on the device; the mask of each is a function of its name."""
        data = self._split(split)
        draws = np.array([of_name(data.sample_name(int(index))) for index in indices], np.uint64)
        return self.transfer(batches.host_batch(self.config, data.load(indices), draws), device)

    @property
    def _hidden(self) -> int:
        """Masked patches of an image."""
        return self.config.patches - self.config.kept

    def _target(self, batch: Batch) -> Tensor:
        """[B, L, P]: what the patches of whole images are in the target's units."""
        return self._units(batch["target_images"])

    def _units(self, images: Tensor) -> Tensor:
        """Patches [B, L, P] of normalised images in the target's units."""
        patches = masked.patchify(images, self.config.patch_size)
        if not self.config.norm_pix_loss:
            return patches
        mean, deviation = masked.patch_statistics(patches)
        return (patches - mean) / deviation

    def _pixels(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """Predicted patches as normalised pixels; under ``norm_pix_loss`` by the statistics of the true ones."""
        if not self.config.norm_pix_loss:
            return prediction
        mean, deviation = masked.patch_statistics(truth)
        return prediction * deviation + mean

    def _outputs(self, outputs: Mapping[str, Tensor], samples: int) -> tuple[Tensor, Tensor]:
        """``prediction`` and ``mask``, or a ValueError that says what is wrong with them."""
        for key in ("prediction", "mask"):
            if key not in outputs:
                raise ValueError(f"forward must return the key '{key}', got {', '.join(outputs) or 'nothing'}")
        prediction, mask = outputs["prediction"], outputs["mask"]
        patches, pixels = self.config.patches, 3 * self.config.patch_size**2
        if mask.shape != (samples, patches):
            raise ValueError(f"mask must be [B, L] = {[samples, patches]}, got {list(mask.shape)}")
        shape = prediction.shape
        if len(shape) != 3 or shape[0] != samples or shape[2] != pixels or not 0 < shape[1] <= patches:
            raise ValueError(
                f"prediction must be [B, L, P] = {[samples, patches, pixels]}, or [B, M, P] with as many patches as mask has "
                f"ones, got {list(shape)}"
            )
        return prediction, mask

    # ----------------------------------------------------------------------------------------------------- probes

    def _add_probes(self, records: list[SampleRecord], features: Features, device: torch.device) -> None:
        """Whether the probes of frozen `features` tell each test image's class, into its record."""
        # As many patches in a step as the visible ones of an evaluation batch, so that it fits the memory probed for that.
        step = max(1, self.config.eval_batch * self.config.kept // self.config.patches)
        columns = probes.score(
            features, self._split("train"), self._split(PROBED_SPLIT), self.config.probe_images, step, device
        )
        for name, values in columns.items():
            for record, value in zip(records, values, strict=True):
                record[name] = value

    def _probed_references(self, device: torch.device) -> Iterator[dict[str, Any]]:
        """The most frequent class of training, and probes of features that learn nothing."""
        data, train = self._split(PROBED_SPLIT), self._split("train")
        names = [f"{PROBED_SPLIT}/{data.sample_name(index)}" for index in range(len(data))]
        majority, right = probes.majority(train, data, self.config.probe_images)
        records = [
            {"sample": name, **dict.fromkeys(probe.PROBES, value)} for name, value in zip(names, right, strict=True)
        ]
        yield _entry("majority-class", f"the most frequent class, '{majority}'", records)
        for key, (label, function) in FEATURES.items():
            records = [{"sample": name} for name in names]

            def features(images: Tensor, function: Callable[[Tensor, int], Tensor] = function) -> Tensor:
                return function(images, self.config.patch_size)

            self._add_probes(records, features, device)
            yield _entry(key, label, records)

    # ------------------------------------------------------------------------------------------------------ splits

    def _split(self, split: str, report: Progress | None = None) -> ImageSplit:
        if split not in self._splits:
            opened = self._open(split) if self._open else self._source.open(split, report)
            size = self.config.image_size
            first = opened.load(np.zeros(1, np.int64))
            if first.shape != (1, size, size, 3) or first.dtype != np.uint8:
                raise UserError(
                    f"{split}: load must give images as uint8 {[1, size, size, 3]}, got {first.dtype} {list(first.shape)}"
                )
            if self.config.probe_images and not opened.classes:
                raise UserError(
                    f"task.probe_images is {self.config.probe_images}, but {split} has no classes to probe: put its images into "
                    f"one folder a class, or set task.probe_images: 0"
                )
            self._splits[split] = opened
        return self._splits[split]


def _asked(model: nn.Module) -> dict[str, bool]:
    """``predict_all=True`` for a forward that takes it."""
    return {"predict_all": True} if "predict_all" in inspect.signature(model.forward).parameters else {}


def _entry(name: str, label: str, records: list[SampleRecord]) -> dict[str, Any]:
    """A predictor that learns nothing, with the mean of each of its metrics."""
    keys = [key for key in records[0] if key != "sample"]
    means = {key: float(np.mean([record[key] for record in records])) for key in keys}
    return {"name": name, "label": label, "metrics": means, "records": records}
