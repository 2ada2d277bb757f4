"""Tracking: given the box of a target in the first frame of a clip, find it in the others.

Fields of a batch (B samples, each two crops about a target and one in which to find it; t = ``template_size``, s =
``search_size``):

===============  =============  =======================================================================================
template         [B, 3, t, t]   fp32, normalised by ImageNet's mean and deviation; the target in one frame of a clip
online_template  [B, 3, t, t]   the target in another frame, nearer to the search crop's
search           [B, 3, s, s]   where it is looked for
boxes            [B, 4]         fp32: centre x, centre y, width and height of the target in fractions of the search crop, cut off
                                at its border; seen by the loss only
===============  =============  =======================================================================================

An architecture returns ``{"boxes_cxcywh": [B, 4]}``, in the form of ``boxes``; any finite numbers are legal. One that also has
``set_templates(template, online_template) -> cache`` and ``track(search, cache) -> boxes_cxcywh`` is followed online with the
cache, which must come to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.aggregates import summarise
from bench.contracts import Metric, SampleRecord, Symmetry
from bench.data import got10k, lasot, video
from bench.data.video.clips import sample_name
from bench.errors import UserError
from bench.metrics import boxes as overlap
from bench.metrics import tracking as metrics
from bench.tasks import tracking_batches as batches
from bench.tasks.tracking_config import PRESETS, TrackingConfig
from bench.tasks.tracking_loop import Predictor, boxes_of, follow
from bench.tasks.tracking_references import REFERENCES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from bench.contracts import Batch
    from bench.data.cache_folder import Progress
    from bench.data.video.clips import BoxedVideos

__all__ = ["PRESETS", "Tracking", "TrackingConfig"]

SPLITS = ("train", "validation", "test")
"""Splits that are used."""

IOU_WEIGHT, L1_WEIGHT = 2.0, 5.0
"""Of the two terms of the loss, as published."""

QUICK_CLIPS = 20
"""Clips of a split that the cheap evaluation inside a run follows, evenly over the split."""

LONGEST_CYCLE = 25
"""Most frames of the cycle that inference is timed on; templates that last longer are charged to so many frames."""


class Tracking:
    """The task ``tracking`` of `bench.contracts.Task`, on any `BoxedVideos`."""

    name = "tracking"
    config_class = TrackingConfig
    input_fields = batches.CROPS
    target_fields = ("boxes",)
    pairing = "clip"
    symmetries: tuple[Symmetry, ...] = ()

    def __init__(
        self, config: TrackingConfig, cache_dir: Path, open_split: Callable[[str], BoxedVideos] | None = None
    ) -> None:
        """Nothing is read before it is needed.

        Args:
            config: the options.
            cache_dir: where generated clips are kept and looked for.
            open_split: gives the clips of a split by its name; by default what ``config.data`` says.
        """
        self.config = config
        self.evaluation_batch = config.eval_batch
        self._cache_dir, self._open = Path(cache_dir), open_split
        self._splits: dict[str, BoxedVideos] = {}
        self._training: batches.TrainingClips | None = None
        self.metrics: tuple[Metric, ...] = (
            metrics.AO,
            metrics.SR50,
            metrics.SR75,
            *metrics.lasot_metrics(exclude_absent=config.exclude_absent),
        )
        if config.data == "embedded":
            self.metrics += tuple(metrics.by_factor(metrics.AO, factor) for factor in config.factors)

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that must stand under the table: of the splits that were opened so far."""
        return tuple(dict.fromkeys(line for split in self._splits.values() for line in split.notices))

    # ------------------------------------------------------------------------------------------------------- data

    def prepare(self, progress: Progress | None = None) -> None:
        """Make what is missing of the embedded clips, or find the files; and find what training can use.

        Idempotent, safe under two processes.
        """
        if self.config.data == "embedded" and self._open is None:
            video.prepare(self.config.video_spec, self._cache_dir, progress, SPLITS)
        self._training_clips(progress)
        for split in SPLITS[1:]:
            self._split(split, progress)

    def fingerprints(self) -> dict[str, str]:
        """Digests of the data of the splits that were opened so far, wherever they lie."""
        return {name: split.fingerprint for name, split in self._splits.items()}

    def training_size(self) -> int:
        """Number of training clips; each gives one sample an epoch, of other frames every time."""
        return len(self._training_clips())

    def collate(self, indices: np.ndarray, draws: np.ndarray) -> Batch:
        """One sample of each training clip `indices` [B], frames, jitter and mirroring as `draws` [B] uint64 say."""
        return batches.host_batch(self.config, self._training_clips(), indices, draws)

    def transfer(self, batch: Batch, device: torch.device) -> Batch:
        """Move to `device`, crops normalised."""
        return batches.to_device(batch, device)

    def worst_case(self, batch_size: int) -> Batch:
        """Host batch of the shapes of training, of synthetic content: all batches have the same."""
        return self.synthetic(batch_size, seed=0)

    def synthetic(self, batch_size: int, seed: int) -> Batch:
        """Host batch like `collate`'s, of noise; reads no data."""
        return batches.synthetic(self.config, batch_size, seed)

    def edge_cases(self, batch_size: int) -> dict[str, Batch]:
        """Legal but degenerate host batches, by name."""
        return batches.edge_cases(self.config, batch_size)

    # ----------------------------------------------------------------------------------------------- loss and score

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """2 (1 - CIoU or GIoU) + 5 L1, the latter the mean over the corners' coordinates; mean over the batch, fp32.

        Finite, with a finite gradient, for any finite prediction, such as a box of negative size.

        Raises:
            ValueError: the outputs lack ``boxes_cxcywh``, or its shape does not fit.
        """
        predicted = overlap.corners_of_centres(boxes_of(outputs, len(batch["boxes"])).float())
        target = overlap.corners_of_centres(batch["boxes"])
        agreement = {"ciou": overlap.ciou, "giou": overlap.giou}[self.config.iou_loss](predicted, target)
        return IOU_WEIGHT * (1 - agreement).mean() + L1_WEIGHT * (predicted - target).abs().mean()

    def evaluate(
        self, model: nn.Module, device: torch.device, *, split: str = "test", quick: bool = False
    ) -> list[SampleRecord]:
        """Follow the targets of `split` through their clips by `model`: one record a clip.

        `quick` follows `QUICK_CLIPS`.

        Raises:
            FloatingPointError: the model predicted a box that is not finite; names the first such clip.
        """
        data, records = self._split(split), []
        for clips in self._chosen(split, QUICK_CLIPS if quick else None):
            followed = follow(self.config, Predictor(model), data, clips, device)
            records += [self._record(split, clip, boxes) for clip, boxes in zip(clips, followed, strict=True)]
        return records

    def references(self, split: str = "test", device: torch.device | None = None) -> list[dict[str, Any]]:
        """Predictors that learn nothing, scored like a model on the same clips.

        Returns:
            For each: ``name``, ``label``, ``metrics`` and ``records``.
        """
        result = []
        for reference in REFERENCES:
            records = [
                self._record(split, clip, reference.boxes(self._truth(split, clip)[0]))
                for clips in self._chosen(split, None)
                for clip in clips
            ]
            means = summarise(self.metrics, records)
            result.append({"name": reference.name, "label": reference.label, "metrics": means, "records": records})
        return result

    def inference_case(self, batch_size: int) -> tuple[Batch, int, str]:
        """Host batch, frames that `inference_call` makes of one of its samples, and what these are called."""
        return self.worst_case(batch_size), self._cycle, "frames"

    def inference_call(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Callable[[], object]:
        """What following costs: templates are set once and `update_interval` frames, or `LONGEST_CYCLE`, searched with them.

        Templates that last for longer than `LONGEST_CYCLE` frames are thereby charged a little more than their share. Cutting
        crops out of frames, the same for all architectures, is left out.
        """

        def cycle() -> None:
            predictor = Predictor(model)
            predictor.set_templates(inputs["template"], inputs["online_template"])
            for _ in range(self._cycle):
                predictor.boxes(inputs["search"])

        return cycle

    def pictures(self, models: Mapping[str, nn.Module], device: torch.device) -> np.ndarray | None:
        """Grid of frames of some test clips: the true box, and with it that of each model, uint8 [H, W, 3]."""
        from bench.tasks.tracking_pictures import picture

        data = self._split("test")
        clips = next(self._chosen("test", QUICK_CLIPS))
        with torch.inference_mode():
            followed = {
                name: follow(self.config, Predictor(model), data, clips, device) for name, model in models.items()
            }
        return picture(data, clips, followed)

    @property
    def _cycle(self) -> int:
        interval = self.config.update_interval
        return min(interval or LONGEST_CYCLE, LONGEST_CYCLE)

    def _record(self, split: str, clip: int, predicted: NDArray[np.float64]) -> SampleRecord:
        """Record of one clip by its predicted boxes [F, 4] from the frame on in which the target is given."""
        info, (truth, seen) = self._split(split).info(clip), self._truth(split, clip)
        record: SampleRecord = {"sample": sample_name(split, info)}
        record |= metrics.got10k(predicted, truth, seen, info.height, info.width)
        record |= metrics.lasot(predicted, truth, seen, exclude_absent=self.config.exclude_absent)
        if metrics.AO.name in record:
            known = {metric.name for metric in self.metrics}
            names = [metrics.by_factor(metrics.AO, factor).name for factor in info.factors]
            record |= {name: record[metrics.AO.name] for name in names if name in known}
        return record

    def _truth(self, split: str, clip: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """True boxes [F, 4] from the frame on in which the target is given, and [F] whether any of it is to be seen."""
        data = self._split(split)
        truth, start = data.boxes(clip), data.info(clip).first_frames[0]
        return truth.xywh[start:].astype(np.float64), (truth.present & (truth.visible > 0))[start:]

    # ------------------------------------------------------------------------------------------------------ splits

    def _chosen(self, split: str, count: int | None) -> Iterator[list[int]]:
        """Numbers of `count` clips evenly over a split, or of all, a batch at a time."""
        clips = np.arange(len(self._split(split)))
        if count is not None and count < len(clips):
            clips = np.linspace(0, len(clips) - 1, count).round().astype(np.int64)
        for start in range(0, len(clips), self.config.eval_batch):
            yield clips[start : start + self.config.eval_batch].tolist()

    def _split(self, split: str, progress: Progress | None = None) -> BoxedVideos:
        if split not in self._splits:
            self._splits[split] = self._open(split) if self._open else self._open_data(split, progress)
        return self._splits[split]

    def _open_data(self, split: str, progress: Progress | None) -> BoxedVideos:
        """The clips that the options name."""
        if self.config.data == "embedded":
            return video.open_boxed(self.config.video_spec, split, self._cache_dir)
        if self.config.data_path is None:
            raise UserError(
                f"task.data_path is not set: give the folder of {self.config.data}, or set task.data: embedded for generated clips"
            )
        more: dict[str, Any] = {}
        if self.config.leave_out is not None:
            more["leave_out"] = self.config.leave_out
        if self.config.data == "lasot":
            more["first_pixel"] = self.config.first_pixel
        opening: Callable[..., BoxedVideos] = {"got10k": got10k.open_got10k, "lasot": lasot.open_lasot}[
            self.config.data
        ]
        return opening(
            Path(self.config.data_path).expanduser(),
            split,
            **more,
            limit=self.config.clip_limit(split),
            # Where training shares the cores with decoding, no more threads than the comparison was given.
            workers=None if torch.cuda.is_available() else torch.get_num_threads(),
            report=progress,
        )

    def _training_clips(self, progress: Progress | None = None) -> batches.TrainingClips:
        if self._training is None:
            self._training = batches.TrainingClips(self.config, self._split("train", progress), progress)
        return self._training
