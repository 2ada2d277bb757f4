"""What the records of the task ``openvocab`` hold, and how tables name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.contracts import Metric
from bench.metrics.segmentation import BOUNDARY_NOTE

if TYPE_CHECKING:
    from bench.tasks.openvocab_config import OpenVocabularyConfig

COUNTS = "counts"
"""Key of a record: ``<group>/<class>`` -> [hits, true, predicted] in pixels of the picture, of classes that are there or predicted."""
WORDS = "counts_words"
"""The same of the pictures with words that training lacks, which have a list of classes of their own."""
SHUFFLED = "counts_shuffled"
"""The same where every class was asked for by the name of another."""

GT = "mean over the classes that the ground truth has"
SUMMED = "hits, true and predicted pixels of a class summed over all pictures; void pixels count for nothing"


def metrics(config: OpenVocabularyConfig) -> tuple[Metric, ...]:
    """The headline first: harmonic mean of seen and unseen where every test has both, else the mean IoU of all classes."""
    by_group = (
        _percent(
            "miou_harmonic",
            "mIoU, harmonic",
            "harmonic",
            "harmonic mean of the mIoU of seen and of unseen classes, or the one of them that there is",
        ),
        _percent("miou_seen", "mIoU, seen", "miou-gt:seen", f"classes whose names training has; {GT} (miou_gt)"),
        _percent(
            "miou_unseen", "mIoU, unseen", "miou-gt:unseen", f"classes whose names training lacks; {GT} (miou_gt)"
        ),
    )
    overall = _percent("miou_gt", "mIoU", "miou-gt", f"{GT}, as detectron2 defines it since July 2022; {SUMMED}")
    union = "mean over the classes that the ground truth or the prediction has, as detectron2 0.6 defined it"
    has_both = config.embedded or config.aligned
    return (
        *((*by_group, overall) if has_both else (overall, *by_group)),
        _percent("miou_union", "mIoU, union", "miou-union", union, "other definitions"),
        _percent("fwiou", "fwIoU", "fwiou", "IoU weighted by the share of the ground truth", "other definitions"),
        _percent(
            "mean_accuracy", "mACC", "mean-accuracy", f"share of a class that is found, {GT}", "other definitions"
        ),
        _percent("pixel_accuracy", "pACC", "pixel-accuracy", "share of all pixels", "other definitions"),
        _of_pictures("picture_accuracy", "pACC of a picture", "share of a picture's pixels"),
        _of_pictures("boundary_iou", "boundary IoU", BOUNDARY_NOTE),
        *_controls(config),
    )


def _controls(config: OpenVocabularyConfig) -> tuple[Metric, ...]:
    shuffled = _percent(
        "miou_shuffled",
        "mIoU, names shuffled",
        "miou-gt",
        "of the first pictures, where every class is asked for by the name of another: what a model scores without reading names",
        "controls",
        SHUFFLED,
    )._replace(higher_is_better=None)
    if "words" not in config.splits:
        return (shuffled,)
    words = _percent(
        "miou_words",
        "mIoU, left-out words",
        "miou-gt:word",
        "classes with a word that training lacks, in pictures and by a list of classes of their own: near chance is honest",
        "controls",
        WORDS,
    )
    return (words._replace(higher_is_better=None), shuffled)


def _percent(name: str, label: str, how: str, note: str, group: str = "", of: str = COUNTS) -> Metric:
    return Metric(name, f"{label} (%)", True, 1, note, aggregate=how, group=group, of=of)


def _of_pictures(name: str, label: str, note: str) -> Metric:
    return Metric(name, f"{label} (%)", True, 1, f"{note}; mean over pictures", group="picture by picture")
