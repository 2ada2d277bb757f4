"""Masked hydrology: daily fields and gauge series of which most is hidden, to be filled in from the rest.

Fields of a batch (B samples, one catchment and one window of T days each; K image modalities of N patches a day and P pixels a
patch; S series; A attributes of the catchment). A token of an image modality is a patch on a day, number t * N + n; of a series
it is a day, number t. V and M of them are visible and predicted, Vs and Ms of a series:

==================  ================  =====================================================================================
image_values        [B, K, V, P]      pixels of the visible patches, normalised; 0 in the sea and where nothing was observed
image_visible       [B, K, V]         their numbers, int64, ascending
image_predicted     [B, K, M]         numbers of the patches to predict, int64, in random order
series_values       [B, S, Vs]        visible days, normalised
series_visible      [B, S, Vs]        their numbers, int64, ascending
series_predicted    [B, S, Ms]        days to predict, int64, in random order
statics             [B, A]            normalised; 0 where unknown
patch_positions     [B, N, 2]         row and column of each patch
day_of_year         [B, T]            0..365
image_targets       [B, K, M, P]      seen by the loss and the metrics only, like those below
image_target_mask   [B, K, M, P]      bool, True: on land, and observed
series_targets      [B, S, Ms]
series_target_mask  [B, S, Ms]        bool
==================  ================  =====================================================================================

All values are fp32, and differences from climatology where the option ``anomalies`` says so. Fields of a kind of modality that
the options leave out are not there. Where samples may be ragged (`HydrologyConfig.ragged`), numbers of tokens are padded with
-1, and a ``.._mask`` (bool, True: a token) stands beside each of the four. An architecture returns ``{"image_prediction": [B, K, M, P], "series_prediction": [B, S, Ms]}``, normalised and finite,
on padding too; in training it may predict the first M' <= M alone. One that does takes ``predict_all=True`` in evaluation.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.aggregates import summarise
from bench.contracts import Metric, SampleRecord, Symmetry
from bench.data.draws import of_name
from bench.data.shards import write_atomically
from bench.tasks import hydrology_batches as batches
from bench.tasks.hydrology_batches import Chosen
from bench.tasks.hydrology_config import PRESETS, HydrologyConfig, usual_units
from bench.tasks.hydrology_data import Region, check_generated
from bench.tasks.hydrology_evaluation import Scorer, best_errors, metrics_of, output
from bench.tasks.hydrology_masks import present_modalities, window_lengths
from bench.tasks.hydrology_references import REFERENCES
from bench.tasks.hydrology_source import open_data

if TYPE_CHECKING:
    from torch import nn

    from bench.contracts import Batch
    from bench.data.cache_folder import Progress
    from bench.data.hydrology import HydrologyData

__all__ = ["PRESETS", "Hydrology", "HydrologyConfig"]

QUICK_WINDOWS = 6
"""Windows of a split that the cheap evaluation inside a run scores, evenly over the split."""

QUICK_CATCHMENTS = 24
"""Most catchments in which it scores them; where there are more, evenly among them, and its errors are those of these."""

Predict = Callable[["Batch", Chosen], Mapping[str, Tensor]]


class Hydrology:
    """The task ``hydrology`` of `bench.contracts.Task`."""

    name = "hydrology"
    config_class = HydrologyConfig

    def __init__(
        self, config: HydrologyConfig, cache_dir: Path, open_region: Callable[[], HydrologyData] | None = None
    ) -> None:
        """Nothing is read before it is needed.

        Args:
            config: the options.
            cache_dir: where generated data are kept and looked for.
            open_region: gives the data; by default what ``config.data`` says.

        Raises:
            UserError: the options ask what the generated region does not have.
        """
        if config.data == "generated" and open_region is None:
            check_generated(config)
        self.config = config
        self.evaluation_batch = config.eval_batch
        self.metrics: tuple[Metric, ...] = metrics_of(config, usual_units(config.data))
        self._cache_dir, self._open = Path(cache_dir), open_region
        self._region: Region | None = None
        self._pairs: tuple[np.ndarray, np.ndarray] | None = None
        self._references: dict[str, list[dict[str, Any]]] = {}
        self._best: dict[str, dict[str, float]] = {}
        roles = [role for role, names in (("image", config.images), ("series", config.series_names)) if names]
        inputs = [f"{role}_{kind}" for role in roles for kind in ("values", "visible", "predicted")]
        if config.ragged:
            inputs += [f"{field}_mask" for role in roles for field in batches.MASK_FIELDS[role]]
        inputs += ["statics"] * bool(config.static_names) + ["patch_positions"] * bool(config.images) + ["day_of_year"]
        self.input_fields = tuple(inputs)
        self.target_fields = tuple(f"{role}_{kind}" for role in roles for kind in ("targets", "target_mask"))
        self.symmetries: tuple[Symmetry, ...] = (Symmetry("order of the visible tokens", batches.permute_visible),)
        if config.ragged:
            self.symmetries += (Symmetry("what padding holds", batches.scramble_padding),)

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that must stand under the table: of the data, once they were opened."""
        return () if self._region is None else tuple(self._region.notices)

    # ------------------------------------------------------------------------------------------------------- data

    def prepare(self, progress: Progress | None = None) -> None:
        """Make or read the data, and score the references of the validation and test split, which skill is measured by.

        Idempotent, safe under two processes.
        """
        self._opened(progress)
        for step, split in enumerate(("validation", "test")):
            if progress is not None:
                progress(f"references of {split}", step, 2)
            self.references(split)

    def fingerprints(self) -> dict[str, str]:
        """Digest of the data, once they were opened: all splits are of one record."""
        return {} if self._region is None else {"all": self._region.fingerprint}

    def training_size(self) -> int:
        """Number of training samples: every catchment with every window of the training years."""
        return len(self._training_pairs()[1])

    def collate(self, indices: np.ndarray, draws: np.ndarray) -> Batch:
        """Training samples `indices` [B], whose length, missing modalities and masks `draws` [B] uint64 choose."""
        config, region = self.config, self._opened()
        catchments, starts = self._training_pairs()
        lengths = window_lengths(draws, config.shortest, config.longest)
        present = None
        if config.missing_modality:
            present = present_modalities(draws, len(config.modalities), config.missing_modality)
        chosen = Chosen(catchments[indices], starts[indices], lengths, draws, draws, present)
        return batches.gather(config, region, chosen, longest=config.longest)

    def transfer(self, batch: Batch, device: torch.device) -> Batch:
        """Move to `device`; on CUDA as pinned memory, asynchronously."""
        moved = {}
        for name, value in batch.items():
            if device.type == "cuda" and value.device.type == "cpu" and not value.is_pinned():
                value = value.pin_memory()
            moved[name] = value.to(device, non_blocking=True)
        return moved

    def worst_case(self, batch_size: int) -> Batch:
        """Host batch of the largest shapes of training, of synthetic content; no token is padding."""
        return batches.synthetic(self.config, self._patches(), batch_size, seed=0, whole=True)

    def synthetic(self, batch_size: int, seed: int) -> Batch:
        """Host batch like `collate`'s, of noise.

        Where samples may be ragged, every other one is as short as can be and lacks a modality.
        """
        return batches.synthetic(self.config, self._patches(), batch_size, seed)

    def edge_cases(self, batch_size: int) -> dict[str, Batch]:
        """Legal but degenerate host batches, by name."""
        return batches.edge_cases(self.config, self._patches(), batch_size)

    # ----------------------------------------------------------------------------------------------- loss and score

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Sum over modalities of the mean squared error over the modality's targets in the batch; fp32.

        Raises:
            ValueError: an output is missing or has another shape than the first of its targets.
        """
        losses = []
        for role in ("image", "series"):
            if f"{role}_targets" not in batch:
                continue
            target, mask = batch[f"{role}_targets"], batch[f"{role}_target_mask"]
            predicted = outputs.get(f"{role}_prediction")
            count = target.shape[2] if predicted is None or predicted.ndim < 3 else predicted.shape[2]
            target, mask = target[:, :, :count], mask[:, :, :count]
            squared = (output(outputs, role, target.shape).float() - target).square() * mask
            axes = [axis for axis in range(squared.ndim) if axis != 1]
            losses.append((squared.sum(axes) / mask.sum(axes).clamp_min(1)).sum())
        return torch.stack(losses).sum()

    def evaluate(
        self, model: nn.Module, device: torch.device, *, split: str = "test", quick: bool = False
    ) -> list[SampleRecord]:
        """Score `model` on `split`: one record a window, and unless `quick` one a catchment; see `hydrology_evaluation`.

        Windows are `days` long and do not overlap; what is hidden in one is fixed by its number. `quick` scores
        `QUICK_WINDOWS` of them, in the catchments that were trained on.

        Raises:
            FloatingPointError: the model predicted a value that is not finite; names the first such sample.
        """
        best = self._best_reference(split)
        scorer = self._scored(split, lambda batch, chosen: self._predict(model, batch, device), quick)
        records = scorer.window_records(best)
        return records if quick else records + scorer.catchment_records()

    def _predict(self, model: nn.Module, batch: Batch, device: torch.device) -> Mapping[str, Tensor]:
        """What `model` makes of all masked tokens of a host batch."""
        options = {"predict_all": True} if "predict_all" in inspect.signature(model.forward).parameters else {}
        moved = self.transfer({name: batch[name] for name in self.input_fields}, device)
        outputs: Mapping[str, Tensor] = model(**moved, **options)
        return outputs

    def references(self, split: str = "test", device: torch.device | None = None) -> list[dict[str, Any]]:
        """Predictors that learn nothing, scored by the code and on the masks that models are scored by, on the host.

        Returns:
            For each: ``name``, ``label``, ``metrics`` and ``records``.
        """
        if split not in self._references:
            region = self._opened()
            scorers = [self._scored(split, partial(own.predict, region)) for own in REFERENCES]
            self._best[split] = best = best_errors([scorer.window_records({}) for scorer in scorers])
            found = []
            for reference, scorer in zip(REFERENCES, scorers, strict=True):
                records = scorer.window_records(best) + scorer.catchment_records()
                metrics = summarise(self.metrics, records)
                found.append({"name": reference.name, "label": reference.label, "metrics": metrics, "records": records})
            self._references[split] = found
        return self._references[split]

    def _best_reference(self, split: str) -> Mapping[str, float]:
        """MSE of the best reference on all of `split`, by modality."""
        self.references(split)
        return self._best[split]

    def pictures(self, models: Mapping[str, nn.Module], device: torch.device) -> np.ndarray | None:
        """Grid of one test window: truth, what is visible and what each model fills in; None without images."""
        if not self.config.images:
            return None
        from bench.tasks.hydrology_pictures import picture

        region = self._opened()
        chosen = next(self._chosen("test", quick=True))
        batch = batches.gather(self.config, region, chosen, longest=self.config.days)
        with torch.inference_mode():
            predictions = {
                name: output(self._predict(model, batch, device), "image", batch["image_targets"].shape).cpu()
                for name, model in models.items()
            }
        return picture(self.config, region, batch, predictions)

    # ------------------------------------------------------------------------------------------------- evaluation

    def _scored(self, split: str, predict: Predict, quick: bool = False) -> Scorer:
        """What `predict` makes of the evaluation's windows."""
        config, region = self.config, self._opened()
        scorer = Scorer(config, region, split, region.windows(split, config.days))
        for chosen in self._chosen(split, quick):
            batch = batches.gather(config, region, chosen, longest=config.days)
            scorer.add(chosen, batch, predict(batch, chosen))
        return scorer

    def _chosen(self, split: str, quick: bool) -> Iterator[Chosen]:
        """The samples of an evaluation, window by window, a batch at a time."""
        config, region = self.config, self._opened()
        windows = region.windows(split, config.days)
        numbers, catchments = np.arange(len(windows)), np.arange(len(region.ids))
        if quick or split != "test":
            catchments = np.flatnonzero(~region.held_out)
        if quick:
            numbers, catchments = _evenly(numbers, QUICK_WINDOWS), _evenly(catchments, QUICK_CATCHMENTS)
        window, catchment = np.repeat(numbers, len(catchments)), np.tile(catchments, len(numbers))
        for start in range(0, len(window), config.eval_batch):
            own, place = window[start : start + config.eval_batch], catchment[start : start + config.eval_batch]
            names = [f"{split}/window-{number:04d}" for number in own]
            yield Chosen(
                catchments=place,
                starts=windows[own],
                lengths=np.full(len(own), config.days),
                image_draws=np.array([of_name(name) for name in names]),
                series_draws=np.array(
                    [of_name(f"{name}/{region.ids[number]}") for name, number in zip(names, place, strict=True)]
                ),
            )

    # ------------------------------------------------------------------------------------------------------- region

    def _opened(self, progress: Progress | None = None) -> Region:
        if self._region is None:
            data = self._open() if self._open else open_data(self.config, self._cache_dir, progress)
            self._region = Region(data, self.config)
            self.metrics = metrics_of(self.config, self._region.units)
            self._note_patches(len(self._region.patch_positions))
        return self._region

    def _training_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        if self._pairs is None:
            self._pairs = self._opened().training_pairs(self.config)
        return self._pairs

    def _patches(self) -> int:
        """Patches a frame, without reading the data if they were opened before; of generated ones that were not, at most."""
        if self._region is None and self.config.images:
            if self._patch_note.is_file():
                return int(self._patch_note.read_text())
            if self.config.data == "generated":
                region, cells = self.config.region, self.config.patch_cells
                return (region.height // cells) * (region.width // cells)
        return len(self._opened().patch_positions)

    @property
    def _patch_note(self) -> Path:
        """File of the number of patches, for processes that make batches of the right shapes and read no data."""
        names = ("data", "data_path", "grids_path", "grids_land", "region", "images", "patch_cells")
        options = {name: value for name, value in asdict(self.config).items() if name in names}
        key = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]
        return self._cache_dir / "hydrology-patches" / f"{key}.txt"

    def _note_patches(self, count: int) -> None:
        if not self._patch_note.is_file() or self._patch_note.read_text() != str(count):
            self._patch_note.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._patch_note, str(count).encode())


def _evenly(numbers: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the numbers, evenly among them."""
    if len(numbers) <= count:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, count).round().astype(np.int64)]
