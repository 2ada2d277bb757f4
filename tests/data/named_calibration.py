"""How hard the pictures of named things are for predictions that look at no shape and no texture.

    python -m tests.data.named_calibration CACHE_FOLDER [PRESET [SEED]]

renders the default pictures, or those of a preset of the task `openvocab`, if need be and prints the numbers of
docs/segmentation-data.md.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.labelled import VOID, Vocabulary
from bench.data.named import SPLITS, NamedScenes, NamedSceneSpec, open_named, prepare
from bench.data.named.words import COLOURS, LEFT_OUT_COLOURS, LEFT_OUT_SHAPES, LEFT_OUT_TEXTURES, SHAPES, TEXTURES
from bench.tasks.openvocab_config import PRESETS

Labels = NDArray[np.integer]


def stacked(scenes: NamedScenes) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """All pictures [N, H, W, 3] and labels [N, H, W]."""
    numbers = range(len(scenes))
    return np.stack([scenes.image(n) for n in numbers]), np.stack([scenes.labels(n) for n in numbers])


def scores(predicted: Labels, labels: Labels, vocabulary: Vocabulary) -> dict[str, float]:
    """Percent: accuracy of all pixels and of those of things; mean IoU of each group that `labels` hold over its classes there."""
    classes = len(vocabulary.names)
    valid = labels != VOID
    truth, guess = labels[valid].astype(int), predicted[valid].astype(int)
    hit = np.bincount(truth[truth == guess], minlength=classes)
    there, said = np.bincount(truth, minlength=classes), np.bincount(guess, minlength=classes)
    iou = hit / np.maximum(there + said - hit, 1)
    result = {"pixels": 100 * hit.sum() / there.sum(), "pixels of things": 100 * hit[2:].sum() / there[2:].sum()}
    for group in dict.fromkeys(vocabulary.groups):
        mine = (np.array(vocabulary.groups) == group) & (there > 0)
        if mine.any():
            result[f"mIoU {group}"] = 100 * iou[mine].mean()
    return result


def bins_of(rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number of a pixel's colour among 16 x 16 x 16."""
    red, green, blue = np.moveaxis(rgb.astype(np.int64) >> 4, -1, 0)
    return (red * 16 + green) * 16 + blue


def colour_lookup(rgb: NDArray[np.uint8], labels: Labels, things_only: bool = False) -> NDArray[np.int64]:
    """[4096] the most frequent class of each colour in training pictures; 0 for one that never occurs."""
    known = (labels != VOID) & (labels >= (2 if things_only else 0))
    classes = int(labels[known].max()) + 1
    table = np.bincount(bins_of(rgb)[known] * classes + labels[known], minlength=4096 * classes).reshape(4096, classes)
    return table.argmax(1)


def nearest_mean(rgb: NDArray[np.uint8], labels: Labels, test: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Class of the mean colour that is nearest to each pixel of `test`."""
    known = labels != VOID
    flat, classes = labels[known].astype(int), int(labels[known].max()) + 1
    count = np.maximum(np.bincount(flat, minlength=classes), 1)
    means = np.stack([np.bincount(flat, rgb[known][:, c], minlength=classes) / count for c in range(3)], -1)
    centres = (np.stack(np.unravel_index(np.arange(4096), (16, 16, 16)), -1) * 16 + 8).astype(float)
    table = np.square(centres[:, None] - means).sum(-1).argmin(1)
    return table[bins_of(test)]


def guess_left_out(labels: Labels, spec: NamedSceneSpec, seed: int = 0) -> NDArray[np.int64]:
    """What one who knows all words of training says: right, but any word of the kind where one is left out, thing by thing.

    Things of one class in one picture are one thing here.
    """
    rng, vocabulary = np.random.default_rng(seed), spec.vocabulary("words")
    kinds = (
        [*list(TEXTURES)[: spec.textures], *LEFT_OUT_TEXTURES],
        [*list(COLOURS)[: spec.colours], *LEFT_OUT_COLOURS],
        [*list(SHAPES)[: spec.shapes], *LEFT_OUT_SHAPES],
    )
    left_out = {*LEFT_OUT_TEXTURES, *LEFT_OUT_COLOURS, *LEFT_OUT_SHAPES}
    position = {name: number for number, name in enumerate(vocabulary.names)}
    said = labels.astype(np.int64)
    for picture, truth in zip(said, labels, strict=True):
        for label in np.unique(truth):
            if label != VOID and vocabulary.groups[label] == "word":
                words = vocabulary.names[label].split()
                guess = [str(rng.choice(k)) if w in left_out else w for w, k in zip(words, kinds, strict=True)]
                picture[truth == label] = position[" ".join(guess)]
    return said


def main(cache_dir: Path, preset: str = "", seed: str = "0") -> None:
    """Print shares, frequencies and the scores of what learns nothing but colours."""
    spec = replace(PRESETS[preset].named_spec if preset else NamedSceneSpec(), seed=int(seed))
    prepare(spec, cache_dir, lambda *report: print(*report))
    pictures = {split: stacked(open_named(spec, split, cache_dir)) for split in SPLITS}
    for split, (_, labels) in pictures.items():
        vocabulary = spec.vocabulary(split)
        there = np.array([np.bincount(x[x != VOID], minlength=len(vocabulary.names)) > 0 for x in labels]).sum(0)
        share = np.bincount(labels[labels != VOID], minlength=len(vocabulary.names)) / labels.size
        print(split, "ground, sky, void", *np.round([100 * share[0], 100 * share[1], 100 * (labels == VOID).mean()], 2))
        for group in dict.fromkeys(vocabulary.groups):
            mine = np.array([g == group for g in vocabulary.groups])
            mine[:2] = False
            seen = there[mine]
            print(f"  {group}: {mine.sum()} names, {100 * share[mine].sum():.1f} % of the pixels", end=", ")
            print(f"in {seen.min()} / {np.median(seen):g} / {seen.max()} pictures (least, median, most)")
    rgb, labels = pictures["train"]
    for split in ("validation", "test"):
        image, truth = pictures[split]
        predictions = {
            "most frequent class": np.zeros(truth.shape, int),
            "nearest mean colour": nearest_mean(rgb, labels, image),
            "lookup of colours": colour_lookup(rgb, labels)[bins_of(image)],
            "lookup of colours, told where things are": np.where(
                truth < 2, truth, colour_lookup(rgb, labels, things_only=True)[bins_of(image)]
            ),
        }
        for name, predicted in predictions.items():
            found = scores(predicted, truth, spec.vocabulary(split))
            print(f"{split}, {name}:", ", ".join(f"{key} {value:.1f}" for key, value in found.items()))
    vocabulary, (_, labels) = spec.vocabulary("words"), pictures["words"]
    floors = [scores(guess_left_out(labels, spec, guess), labels, vocabulary)["mIoU word"] for guess in range(10)]
    print(f"words, left-out words guessed: mIoU word {np.mean(floors):.1f}, standard deviation {np.std(floors):.1f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
