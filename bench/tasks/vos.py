"""Video object segmentation: given the masks of objects in the frame where they appear, find them in all that follow.

Fields of a batch (B clips, F frames, O = ``objects`` slots, H = W = ``image_size``):

===========  ==================  ===================================================================================
frames       [B, F, 3, H, W]     fp32, normalised by ImageNet's mean and deviation
first_masks  [B, O, H, W]        fp32, 0 or 1: each object's mask in the frame in which it is given
start        [B, O]              int64: that frame, 0 for most; -1: an empty slot, whose mask is 0
masks        [B, F, H, W]        int64: 0 background, o + 1 object slot o, 255 void; before its start an object is
                                 background or void; seen by the loss and the metrics only
===========  ==================  ===================================================================================

An architecture returns ``{"logits"}`` [B, F, 1 + O, H, W], the background first; softmax over these channels gives
probabilities. Frame t may depend on frames up to t alone. One that has ``stream()`` (`bench.tasks.vos_evaluation.VideoStream`) is
evaluated through it, frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.aggregates import summarise
from bench.contracts import Causality, Gate, SampleRecord, Symmetry
from bench.data.video.clips import sample_name
from bench.errors import UserError
from bench.tasks import vos_batches as batches
from bench.tasks import vos_evaluation as evaluation
from bench.tasks import vos_loss, vos_metrics, vos_source
from bench.tasks.vos_config import PRESETS, VOSConfig
from bench.tasks.vos_references import REFERENCES, Reference

if TYPE_CHECKING:
    from torch import nn

    from bench.contracts import Batch
    from bench.data.cache_folder import Progress
    from bench.data.video.clips import MaskedVideos

__all__ = ["PRESETS", "VOSConfig", "VideoObjectSegmentation"]

QUICK_CLIPS = 20
"""Clips of a split that the cheap evaluation inside a run scores: its first ones."""

PICTURE_CLIPS = 2
"""Clips in the qualitative grid: the first ones of the test split."""


class VideoObjectSegmentation:
    """The task ``vos`` of `bench.contracts.Task`, on any `MaskedVideos`."""

    name = "vos"
    config_class = VOSConfig
    input_fields = ("frames", "first_masks", "start")
    target_fields = ("masks",)
    symmetries: tuple[Symmetry, ...] = ()
    causal = (Causality("logits", batches.change_from),)
    pairing = "clip"
    gate = Gate(metric="j", reference="copy-first", margin=20.0)

    def __init__(
        self, config: VOSConfig, cache_dir: Path, open_split: Callable[[str], MaskedVideos] | None = None
    ) -> None:
        """Follow objects through clips kept under `cache_dir` or where `config` says.

        Args:
            config: the options.
            cache_dir: where rendered clips are kept and looked for.
            open_split: gives the clips of a split by its name; by default what ``config.data`` says.
        """
        self.config, self._cache_dir = config, Path(cache_dir)
        self._renders = open_split is None and config.embedded
        self._open = open_split
        self._splits: dict[str, MaskedVideos] = {}
        self.evaluation_batch = config.eval_batch if config.embedded else 1
        self.metrics = vos_metrics.metrics(config)

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that must stand under the table: of the splits that were opened so far."""
        return tuple(dict.fromkeys(line for split in self._splits.values() for line in split.notices))

    # ------------------------------------------------------------------------------------------------------- data

    def prepare(self, progress: Any = None) -> None:
        """Render what is missing of the clips, or list those of the folder.

        Idempotent, resumable, safe under two processes.
        """
        if self._renders:
            vos_source.render(self.config, self._cache_dir, progress)
        for split in self.config.splits:
            self._split(split, progress)

    def fingerprints(self) -> dict[str, str]:
        """Digests of the clips of the splits that were opened so far, wherever they lie."""
        return {name: split.fingerprint for name, split in self._splits.items()}

    def training_size(self) -> int:
        """Number of training clips; a sample is a window of one."""
        return self._clips("train")

    def collate(self, indices: np.ndarray, draws: np.ndarray) -> Batch:
        """Windows of the training clips `indices` [B] as `draws` [B] uint64 say, on the host; see `vos_batches`."""
        return batches.host_batch(self.config, self._split("train"), indices, draws)

    def transfer(self, batch: Batch, device: torch.device) -> Batch:
        """Move to `device`: frames normalised, first masks taken out of the masks."""
        return batches.to_device(batch, device)

    def worst_case(self, batch_size: int) -> Batch:
        """Host batch of the shapes of training, of synthetic content: all batches have the same."""
        return self.synthetic(batch_size, seed=0)

    def synthetic(self, batch_size: int, seed: int) -> Batch:
        """Host batch like `collate`'s, of random frames, some objects of which start late; reads no data."""
        return batches.synthetic(self.config, batch_size, seed, late=True)

    def edge_cases(self, batch_size: int) -> dict[str, Batch]:
        """Legal but degenerate host batches, by name."""
        return batches.edge_cases(self.config, batch_size)

    def inference_case(self, batch_size: int) -> tuple[Batch, int, str]:
        """Host batch of clips as long and large as evaluated ones, the frames of one, and what these are called."""
        frames = self.config.evaluation_frames
        case = batches.synthetic(self.config, batch_size, seed=0, frames=frames, shape=evaluation.shape(self.config))
        return case, frames, "frames"

    def inference_call(self, model: nn.Module, inputs: Batch) -> Callable[[], Any]:
        """What is timed: following the objects as evaluation does, frame by frame where the model can."""
        return evaluation.repeatable(model, inputs)

    # ----------------------------------------------------------------------------------------------- loss and score

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch, progress: float | None = None) -> Tensor:
        """Cross-entropy of the hardest pixels plus dice, summed over frames as published; fp32. See `vos_loss.loss`.

        Args:
            outputs: with ``logits`` [B, F, 1 + O, H, W].
            batch: as `transfer` gives it.
            progress: share of the budget that is spent, which sets how many pixels count; None: all.

        Raises:
            ValueError: the outputs lack ``logits``, or their shape does not fit.
        """
        config, masks = self.config, batch["masks"]
        if "logits" not in outputs:
            raise ValueError(f"forward must return the key 'logits', got {', '.join(outputs) or 'nothing'}")
        shape = (*masks.shape[:2], 1 + batch["start"].shape[1], *masks.shape[2:])
        if outputs["logits"].shape != shape:
            raise ValueError(f"logits must be [B, F, 1 + O, H, W] = {list(shape)}, got {list(outputs['logits'].shape)}")
        share = vos_loss.hardest_share(progress, config.ce_start, config.ce_end, config.ce_fraction)
        return vos_loss.loss(outputs["logits"], masks, batch["start"], share)

    @torch.inference_mode()
    def evaluate(
        self, model: nn.Module, device: torch.device, *, split: str = "test", quick: bool = False
    ) -> list[SampleRecord]:
        """Score `model` on `split`: one record a clip and object, ``<split>/<clip>/object-<number>``.

        Clips go through ``model.stream()`` where there is one, else whole through forward. `quick` scores J of the first
        `QUICK_CLIPS` alone; otherwise the clips of ``shifted`` are scored beside those of ``test``, by J alone.

        Raises:
            FloatingPointError: the logits of a clip are not finite; names it.
            ValueError: logits have the wrong shape.
        """

        def follow(split: str, clips: Sequence[int]) -> evaluation.Followed:
            return self._follow(model, device, split, clips, with_usage=not quick)

        return self._records(follow, split, quick)

    def references(self, split: str = "test", device: torch.device | None = None) -> list[dict[str, Any]]:
        """Predictors that learn nothing, scored like a model on the same clips.

        Returns:
            For each: ``name``, ``label``, ``metrics`` (what stands for a run of each) and ``records``.
        """
        result = []
        for reference in REFERENCES:

            def follow(split: str, clips: Sequence[int], reference: Reference = reference) -> evaluation.Followed:
                videos = self._split(split)
                labels = [reference.predict(_truth(videos, clip), videos.info(clip)) for clip in clips]
                return evaluation.Followed(np.stack(labels), None)

            records = self._records(follow, split)
            entry = {"name": reference.name, "label": reference.label, "metrics": summarise(self.metrics, records)}
            result.append({**entry, "records": records})
        return result

    def write_predictions(
        self, model: nn.Module, device: torch.device, out: Path, *, split: str = "test", report: Progress | None = None
    ) -> None:
        """Write what `model` predicts as index masks, ``<out>/<clip>/<frame>.png``, with the data set's names, numbers and palette.

        Args:
            model: in eval mode.
            device: where it is.
            out: folder; clips that are there already are refused.
            split: of real data; ``submission`` is what their servers score.
            report: progress, a step for each clip.

        Raises:
            UserError: the data are not in files, a clip was written before, or the disk.
        """
        videos, count = self._split(split), self._clips(split)
        write = getattr(videos, "write_prediction", None)
        if write is None:
            raise UserError(
                f"task.data is {self.config.data}: only davis, davis-2016 and youtube-vos have files to be like"
            )
        for clip in range(count):
            if report:
                report("writing masks", clip, count)
            with torch.inference_mode():
                write(out, clip, self._follow(model, device, split, [clip]).labels[0])
        if report:
            report("writing masks", count, count)

    def pictures(self, models: Mapping[str, nn.Module], device: torch.device) -> np.ndarray | None:
        """Grid of the first test clips at a few times: frames, true masks, and as each model finds them; uint8 [H, W, 3]."""
        from bench.tasks import vos_pictures

        videos, parts = self._split("test"), []
        for clip in range(min(PICTURE_CLIPS, self._clips("test"))):
            info = videos.info(clip)
            times = np.flatnonzero(info.annotated)
            times = times[np.linspace(0, len(times) - 1, vos_pictures.TIMES).round().astype(int)]
            columns = {"truth": videos.masks(clip, times)}
            with torch.inference_mode():
                for name, model in models.items():
                    columns[name] = self._follow(model, device, "test", [clip]).labels[0, times]
            parts.append((videos.frames(clip, times), columns))
        return vos_pictures.picture(parts)

    # ------------------------------------------------------------------------------------------------- evaluation

    def _follow(
        self, model: nn.Module, device: torch.device, split: str, clips: Sequence[int], *, with_usage: bool = False
    ) -> evaluation.Followed:
        read = evaluation.read_clips(self.config, self._split(split), clips)
        return evaluation.follow(model, read, device, with_usage=with_usage)

    def _records(
        self, follow: Callable[[str, Sequence[int]], evaluation.Followed], split: str, quick: bool = False
    ) -> list[SampleRecord]:
        """Records of a split by what `follow` makes of its clips, a few at a time."""
        records: list[SampleRecord] = []
        count = min(QUICK_CLIPS, self._clips(split)) if quick else self._clips(split)
        for start in range(0, count, self.evaluation_batch):
            clips = range(start, min(start + self.evaluation_batch, count))
            followed, videos = follow(split, clips), self._split(split)
            for place, clip in enumerate(clips):
                info, truth, labels = videos.info(clip), _truth(videos, clip), followed.labels[place]
                usage = None if followed.usage is None else followed.usage[place]
                records += evaluation.score(sample_name(split, info), labels, truth, info, quick=quick, usage=usage)
        if split == "test" and "shifted" in self.config.splits and not quick:
            others = self._records(follow, "shifted")
            records += [{"sample": record["sample"], vos_metrics.SHIFTED: record["j"]} for record in others]
        return records

    # ------------------------------------------------------------------------------------------------------ splits

    def _clips(self, split: str) -> int:
        """Clips of a split that are used."""
        limit = self.config.clip_limit(split)
        return len(self._split(split)) if limit is None else min(limit, len(self._split(split)))

    def _split(self, split: str, report: Progress | None = None) -> MaskedVideos:
        if split not in self._splits:
            opened = (
                self._open(split) if self._open else vos_source.open_clips(self.config, split, self._cache_dir, report)
            )
            if not len(opened):
                raise UserError(f"task.data is {self.config.data}, but {split} has no clips")
            self._splits[split] = opened
        return self._splits[split]


def _truth(videos: MaskedVideos, clip: int) -> np.ndarray:
    """Masks [A, H, W] of the annotated frames of a clip."""
    return videos.masks(clip, np.flatnonzero(videos.info(clip).annotated))
