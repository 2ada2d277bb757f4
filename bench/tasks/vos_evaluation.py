"""Clips under evaluation: read as models receive them, followed frame by frame, and scored object by object."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.data.video.clips import VOID
from bench.data.video_resize import Fit, make_fit
from bench.metrics import video
from bench.tasks import vos_batches as batches
from bench.tasks.vos_metrics import REAL_SIZE, USAGE, factor_key, usage_key

if TYPE_CHECKING:
    from torch import nn

    from bench.contracts import SampleRecord
    from bench.data.video.clips import ClipInfo, MaskedVideos
    from bench.tasks.vos_config import VOSConfig

Labels = NDArray[np.uint8]


class VideoStream(Protocol):
    """A model that follows objects from frame to frame, as ``stream()`` of an architecture gives it.

    Optional members, found by ``getattr``: ``usage`` ([L, B, O, T], or None: of the last step, what each block read of each memory
    frame for each object, mean over heads, summed over the tokens of the frame), ``query_tokens`` (how many of these there are:
    the most that usage sums to) and ``clip_memory_frames`` (for each of the B clips the numbers of the T memory frames; for an
    object that was given after such a frame, the one in which it was given stands in its place). ``stream`` is asked for usage by
    ``usage=True`` where it takes that.
    """

    def step(self, frame: Tensor, masks: Tensor | None, given: Tensor | None) -> Tensor:
        """Logits [B, 1 + O, H, W] of the next frame [B, 3, H, W].

        `masks` [B, O, H, W] are of the slots that are `given` [B, O] in it; both are there in frame 0, and None in later frames in
        which nothing is given.
        """
        ...


class Clips(NamedTuple):
    """Clips of one length and size, as models receive them, on the host."""

    infos: tuple[ClipInfo, ...]
    fit: Fit
    """How their frames came to the size [h, w] of evaluation."""
    frames: Tensor
    """[B, F, 3, h, w] uint8."""
    first_masks: Tensor
    """[B, O, h, w] fp32."""
    start: Tensor
    """[B, O] int64; -1: empty slot."""


class Followed(NamedTuple):
    """What a model made of `Clips`."""

    labels: Labels
    """[B, F, H, W] in the clips' own size: 0 background, o + 1 object slot o."""
    usage: NDArray[np.float32] | None
    """[B, F, O, 4] shares of attention as `USAGE` names them, mean over blocks; NaN in frames without memory."""


def read_clips(config: VOSConfig, videos: MaskedVideos, clips: Sequence[int]) -> Clips:
    """Whole clips of one size: embedded ones as they are, of real ones the shorter side ``eval_size``, padded about the middle."""
    infos = tuple(videos.info(clip) for clip in clips)
    fit = _fit(config, (infos[0].height, infos[0].width))
    slots = max(len(info.first_frames) for info in infos)
    frames, masks, starts = [], [], []
    for clip, info in zip(clips, infos, strict=True):
        frames.append(fit.frames(videos.frames(clip, np.arange(info.frames))))
        start = np.full(slots, -1, np.int64)
        start[: len(info.first_frames)] = info.first_frames
        own = np.zeros((slots, *fit.padded), np.float32)
        for frame in np.unique(start[start >= 0]):
            labels = fit.masks(videos.masks(clip, np.array([frame])))[0]
            for slot in np.flatnonzero(start == frame):
                own[slot] = labels == slot + 1
        masks.append(own)
        starts.append(start)
    return Clips(
        infos,
        fit,
        torch.from_numpy(np.stack(frames)).movedim(-1, 2),
        torch.from_numpy(np.stack(masks)),
        torch.from_numpy(np.stack(starts)),
    )


def follow(model: nn.Module, clips: Clips, device: torch.device, *, with_usage: bool = False) -> Followed:
    """Let `model` follow the objects: through its ``stream()`` where it has one, else by forward on whole clips.

    Where the evaluated size is not the clip's own, probabilities are resized bilinearly before the largest one is taken.

    Raises:
        FloatingPointError: a clip's logits are not finite; names it.
        ValueError: logits have another shape than [B, 1 + O, H, W].
    """
    fit, (rows, columns) = clips.fit, clips.fit.inside
    labels, usage, finite = [], [], torch.ones(len(clips.infos), dtype=torch.bool, device=device)
    for logits, shares in _steps(model, clips, device, with_usage):
        finite &= logits.isfinite().flatten(1).all(1)
        shown = logits[..., rows, columns].float()
        if (fit.height, fit.width) != fit.source:
            shown = F.interpolate(shown.softmax(1), fit.source, mode="bilinear", align_corners=False)
        labels.append(shown.argmax(1).to(torch.uint8))
        usage.append(shares)
    for info, fine in zip(clips.infos, finite.tolist(), strict=True):
        if not fine:
            raise FloatingPointError(f"{info.name}: the logits are not finite")
    found = torch.stack(labels, dim=1).cpu().numpy()
    known = next((shares for shares in usage if shares is not None), None)
    if known is None:
        return Followed(found, None)
    nothing = torch.full_like(known, torch.nan)
    filled = [nothing if shares is None else shares for shares in usage]
    return Followed(found, torch.stack(filled, dim=1).float().cpu().numpy())


def _steps(model: Any, clips: Clips, device: torch.device, with_usage: bool) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Logits [B, 1 + O, h, w] of each frame and its shares of attention [B, O, 4] where they are known."""
    samples, frames = clips.frames.shape[:2]
    masks, start = clips.first_masks.to(device), clips.start.to(device)
    shape = (samples, 1 + start.shape[1], *masks.shape[-2:])
    if not hasattr(model, "stream"):
        images = batches.normalised(clips.frames.flatten(0, 1).to(device)).unflatten(0, (samples, frames))
        logits = model(frames=images, first_masks=masks, start=start)["logits"]
        for number in range(frames):
            yield _checked(logits[:, number], shape), None
        return
    asks = with_usage and "usage" in inspect.signature(model.stream).parameters
    stream = model.stream(usage=True) if asks else model.stream()
    begun = {0, *clips.start.flatten().tolist()}
    for number in range(frames):
        image = batches.normalised(clips.frames[:, number].to(device))
        logits = stream.step(image, *_given(number, masks, start, begun))
        yield _checked(logits, shape), _shares(stream, number, start) if with_usage else None


def _given(number: int, masks: Tensor, start: Tensor, begun: Collection[int]) -> tuple[Tensor | None, Tensor | None]:
    """Masks [B, O, H, W] and which slots [B, O] are given in frame `number`; None unless it is among those that have `begun` any."""
    if number not in begun:
        return None, None
    given = start == number
    return masks * given[:, :, None, None], given


def repeatable(model: Any, inputs: Mapping[str, Tensor]) -> Callable[[], object]:
    """A call that follows the objects of clips as architectures receive them, on the device: through ``stream()``, or by forward."""
    if not hasattr(model, "stream"):
        return partial(model, **inputs)
    frames, masks, start = (inputs[name] for name in ("frames", "first_masks", "start"))
    begun = {0, *start.flatten().tolist()}

    def run() -> None:
        stream = model.stream()
        for number in range(frames.shape[1]):
            stream.step(frames[:, number], *_given(number, masks, start, begun))

    return run


def _shares(stream: Any, number: int, start: Tensor) -> Tensor | None:
    """[B, O, 4]: shares of attention of the last step, frame `number`, as `USAGE` names them; None where they are not known."""
    usage, tokens = getattr(stream, "usage", None), getattr(stream, "query_tokens", None)
    if usage is None or tokens is None:
        return None
    memory = usage.float().mean(0) / tokens  # [B, O, T]
    frames = torch.tensor(stream.clip_memory_frames, device=memory.device)[:, None]  # [B, 1, T]
    first = frames <= start[..., None]
    last = (frames == number - 1) & ~first
    parts = [(memory * mask).sum(-1) for mask in (first, last, ~first & ~last)]
    return torch.stack([1 - memory.sum(-1), *parts], dim=-1)


def score(
    name: str,
    labels: Labels,
    truth: Labels,
    info: ClipInfo,
    *,
    quick: bool = False,
    usage: NDArray[np.float32] | None = None,
) -> Iterator[SampleRecord]:
    """One record an object of a clip that has a scored frame: an annotated one after it was given and before the last.

    Args:
        name: of the clip, with its split.
        labels: [F, H, W] predicted.
        truth: [A, H, W], masks of the annotated frames.
        info: of the clip.
        quick: J alone.
        usage: [F, O, 4] of `Followed`.
    """
    annotated = np.flatnonzero(info.annotated)
    for slot, start in enumerate(info.first_frames):
        places = np.flatnonzero((annotated > start) & (annotated < annotated[-1]))
        if not len(places):
            continue
        frames, void = annotated[places], truth[places] == VOID
        predicted, true = labels[frames] == slot + 1, truth[places] == slot + 1
        predicted = video.without_void(predicted, void)
        j = 100 * video.jaccard(predicted, true)
        record: SampleRecord = {"sample": f"{name}/object-{slot + 1}", "j": float(j.mean())}
        if not quick:
            f = 100 * video.boundary_f(predicted, true)
            record |= {"f": float(f.mean()), "jf": float((j.mean() + f.mean()) / 2)}
            for key, values in (("j", j), ("f", f)):
                record[f"{key}_recall"] = 100 * video.recall(values / 100)
                record[f"{key}_decay"] = video.decay(values)
            record["miou"] = _counts(predicted, true, void)
            record |= {factor_key(factor): record["j"] for factor in info.factors}
            if usage is not None:
                record |= _mean_usage(usage[frames, slot])
        yield record


def _counts(predicted: NDArray[np.bool_], true: NDArray[np.bool_], void: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Class -> [intersection, union] over all frames: the object, and all that is not the object."""
    counts = {}
    for name, pair in (("foreground", (predicted, true)), ("background", (~predicted & ~void, ~true & ~void))):
        intersection, union = video.overlap(*pair)
        counts[name] = [int(intersection.sum()), int(union.sum())]
    return counts


def _mean_usage(shares: NDArray[np.float32]) -> dict[str, float]:
    """Percent of attention on each part, from shares [n, 4] of frames; nothing where none has memory."""
    there = shares[np.isfinite(shares).all(axis=1)]
    if not len(there):
        return {}
    return {usage_key(part): 100 * float(value) for part, value in zip(USAGE, there.mean(axis=0), strict=True)}


def shape(config: VOSConfig) -> tuple[int, int]:
    """Height and width of evaluated clips as models receive them; of real video those of DAVIS, others have their own."""
    return _fit(config, (config.image_size,) * 2 if config.embedded else REAL_SIZE).padded


def _fit(config: VOSConfig, shape: tuple[int, int]) -> Fit:
    """How frames of that height and width come to the size of evaluation."""
    return make_fit(shape, None, 1) if config.embedded else make_fit(shape, config.eval_size, config.patch_multiple)


def _checked(logits: Tensor, shape: tuple[int, ...]) -> Tensor:
    if logits.shape != shape:
        raise ValueError(f"logits of a frame must be [B, 1 + O, H, W] = {list(shape)}, got {list(logits.shape)}")
    return logits
