"""How hard the embedded clips are, and whether memory pays, without training anything.

    python -m tests.data.video_calibration [cache folder] [clips a factor]

prints J (percent, first and last frame left out) of the test split by factor for copying the first mask, for the true previous
mask, and for label propagation: every place of a frame takes the labels of the memory frames' places that look like it. What
a place looks like is the colours about it, 27 numbers; labels are kept at half the resolution.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.video import MaskedVideos, VideoSpec, open_masked, prepare

EVERY = 3
"""Frames between two that the bank keeps."""
TEMPERATURES = (0.001, 0.003, 0.01, 0.03)
"""In units of a channel's range, squared; a read-out is reported at its best one."""
READS = {
    "first": ("first", None),
    "last": ("last", None),
    "bank": ("bank", None),
    "bank topK all": ("bank", "all"),
    "bank topK each": ("bank", "each"),
}
K = 5


def jaccard(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union in percent; 100 where both are empty."""
    union = (predicted | truth).sum()
    return 100.0 * float((predicted & truth).sum() / union) if union else 100.0


def clip_score(predicted: NDArray[np.uint8], truth: NDArray[np.uint8], objects: int) -> float:
    """Mean J over objects and frames [F, H, W], the first and the last frame left out."""
    return float(
        np.mean(
            [
                jaccard(predicted[t] == number, truth[t] == number)
                for number in range(1, objects + 1)
                for t in range(1, len(truth) - 1)
            ]
        )
    )


def copy_first(masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The first mask in every frame."""
    return np.repeat(masks[:1], len(masks), axis=0)


def previous_truth(masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each frame's true previous mask."""
    return np.concatenate([masks[:1], masks[:-1]])


def descriptors(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[F, H/2 * W/2, 27]: colours 0..1 of 3 x 3 places about each at half resolution."""
    half = frames.reshape(len(frames), frames.shape[1] // 2, 2, frames.shape[2] // 2, 2, 3).mean(axis=(2, 4)) / 255
    padded = np.pad(half, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = half.shape[1:3]
    parts = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.concatenate(parts, axis=-1).reshape(len(frames), height * width, 27).astype(np.float32)


def similarity(query: NDArray[np.float32], key: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n, n]: minus the mean squared difference of two frames' descriptors [n, 27]."""
    square = (query**2).sum(1)[:, None] + (key**2).sum(1) - 2 * query @ key.T
    return -square / query.shape[1]


def read(
    logits: NDArray[np.float32], labels: NDArray[np.float32], scope: str | None, frames: int
) -> NDArray[np.float32]:
    """Labels [n, 1 + O] by a softmax over `logits` [n, T * n], of all keys or of the best `K` of all or of each frame."""
    if scope:
        logits = logits.reshape(len(logits), frames if scope == "each" else 1, -1)
        least = np.partition(logits, -K, axis=-1)[..., -K, None]
        logits = np.where(logits >= least, logits, -np.inf).reshape(len(logits), -1)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights @ labels / weights.sum(axis=1, keepdims=True)


def propagate(
    frames: NDArray[np.uint8],
    first: NDArray[np.uint8],
    objects: int,
    policy: str,
    scope: str | None,
    temperature: float,
) -> NDArray[np.uint8]:
    """Masks [F, H, W] of frames [F, H, W, 3] from the first mask [H, W]."""
    looks = descriptors(frames)
    height, width = first.shape
    one_hot = (first[..., None] == np.arange(objects + 1)).astype(np.float32)
    labels = [one_hot.reshape(height // 2, 2, width // 2, 2, -1).mean(axis=(1, 3)).reshape(-1, objects + 1)]
    masks = [first]
    for t in range(1, len(frames)):
        memory = {"first": [0], "last": [t - 1], "bank": sorted({*range(0, t, EVERY), t - 1})}[policy]
        logits = np.concatenate([similarity(looks[t], looks[m]) for m in memory], axis=1) / temperature
        labels.append(read(logits, np.concatenate([labels[m] for m in memory]), scope, len(memory)))
        small = labels[-1].argmax(axis=1).reshape(height // 2, width // 2).astype(np.uint8)
        masks.append(small.repeat(2, axis=0).repeat(2, axis=1))
    return np.stack(masks)


def scores(videos: MaskedVideos, clips: int) -> dict[str, dict[str, list[float]]]:
    """J of at most `clips` clips a factor: factor -> row, with " at <temperature>" where there is one -> J of each clip."""
    found: dict[str, dict[str, list[float]]] = {}
    for clip in range(len(videos)):
        info = videos.info(clip)
        rows = found.setdefault(info.factors[0], {})
        if any(len(values) >= clips for values in rows.values()):
            continue
        every, objects = np.arange(info.frames), len(info.first_frames)
        frames, masks = videos.frames(clip, every), videos.masks(clip, every)
        rows.setdefault("copy-first", []).append(clip_score(copy_first(masks), masks, objects))
        rows.setdefault("previous-truth", []).append(clip_score(previous_truth(masks), masks, objects))
        for name, (policy, scope) in READS.items():
            for temperature in TEMPERATURES:
                predicted = propagate(frames, masks[0], objects, policy, scope, temperature)
                rows.setdefault(f"{name} at {temperature:g}", []).append(clip_score(predicted, masks, objects))
    return found


def best(rows: dict[str, list[float]]) -> dict[str, list[float]]:
    """The rows of a factor, of a read-out the one at its best temperature."""
    chosen = {name: rows[name] for name in ("copy-first", "previous-truth")}
    for name in READS:
        chosen[name] = max((rows[f"{name} at {temperature:g}"] for temperature in TEMPERATURES), key=np.mean)
    return chosen


def main() -> None:
    """Print a table by factor, with standard errors, and one by temperature."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(".cache/isochron")
    spec = VideoSpec()
    prepare(spec, folder, progress=print, splits=["test"])
    found = scores(open_masked(spec, "test", folder), int(sys.argv[2]) if len(sys.argv) > 2 else 20)
    print(f"{'J':>12}", *(f"{name:>14}" for name in ("copy-first", "previous-truth", *READS)))
    for factor, rows in found.items():
        values = best(rows).values()
        print(f"{factor:>12}", *(f"{np.mean(v):8.1f} +-{np.std(v) / len(v) ** 0.5:4.1f}" for v in values))
    print(f"{'bank':>12}", *(f"{temperature:>8g}" for temperature in TEMPERATURES))
    for name in READS:
        means = (
            np.mean([rows[f"{name} at {temperature:g}"] for rows in found.values()]) for temperature in TEMPERATURES
        )
        print(f"{name:>14}", *(f"{mean:8.1f}" for mean in means))


if __name__ == "__main__":
    main()
