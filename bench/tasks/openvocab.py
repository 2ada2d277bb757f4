"""Open-vocabulary segmentation: given a picture and any list of names, say which name each pixel has.

Fields of a batch (B pictures, T classes of a sample's list, P prompts of a class, L tokens, H = W = ``crop_size``):

=======  ===============  ==============================================================================================
image    [B, 3, H, W]     fp32, RGB in 0..1
names    [B, T, P, L]     int64: token ids of the prompts, padded with 0
labels   [B, H, W]        int64: position in the sample's list, 65535 for pixels of no class of it; seen by the loss only
=======  ===============  ==============================================================================================

An architecture returns ``{"logits"}`` [B, T, h, w] of any size: how sure it is of each name, each for itself. The order of a list
says nothing. With ``data: aligned`` there are features of images and of names instead (`bench.tasks.openvocab_aligned`).

Evaluation asks for all classes of a split at once. An architecture with ``encode_text(names [T, P, L]) -> [T, P, C]`` and
``segment(image [B, 3, H, W], text, size) -> probabilities [B, T, *size]`` reads names once, and pictures in their own size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.aggregates import summarise
from bench.contracts import Gate, SampleRecord, Symmetry
from bench.data.labelled import VOID, Vocabulary
from bench.errors import UserError
from bench.tasks import openvocab_batches as batches
from bench.tasks import openvocab_evaluation as evaluation
from bench.tasks import openvocab_metrics, openvocab_references, openvocab_source
from bench.tasks.openvocab_aligned import NOTICE, AlignedFeatures
from bench.tasks.openvocab_config import FIELDS, PRESETS, OpenVocabularyConfig
from bench.tasks.openvocab_lists import Prompts, asked

if TYPE_CHECKING:
    from torch import nn

    from bench.contracts import Batch
    from bench.data.labelled import LabelledImages
    from bench.tasks.openvocab_evaluation import Ask, Scenes

__all__ = ["PRESETS", "OpenVocabulary", "OpenVocabularyConfig"]

QUICK_PICTURES = 32
"""Pictures of a split that the cheap evaluation inside a run scores, and the control of shuffled names: its first ones."""
PICTURES = 4
"""Rows of the qualitative grid: the first pictures of the test split."""
REAL_SIZE = (480, 640)
"""Height and width of real pictures on which inference is timed; each has its own."""
MARGIN = 5.0
"""Points of the headline that the reference arm must be ahead of what learns nothing."""


class OpenVocabulary:
    """The task ``openvocab`` of `bench.contracts.Task`, on any `LabelledImages` or on made-up features."""

    name = "openvocab"
    config_class = OpenVocabularyConfig
    target_fields = ("labels",)
    pairing = "picture"
    symmetries = (Symmetry("order of the classes", batches.permute_classes, batches.restore_classes),)

    def __init__(
        self,
        config: OpenVocabularyConfig,
        cache_dir: Path,
        open_split: Callable[[str], LabelledImages] | None = None,
    ) -> None:
        """Name pixels of pictures kept under `cache_dir` or where `config` says.

        Args:
            config: the options.
            cache_dir: where rendered pictures are kept and looked for.
            open_split: gives the pictures of a split by its name; by default what ``config.data`` says.
        """
        self.config, self._cache_dir, self._open = config, Path(cache_dir), open_split
        self.input_fields = config.inputs_of[config.data]
        self.metrics = openvocab_metrics.metrics(config)
        self.evaluation_batch = config.eval_batch
        self.gate = Gate(self.metrics[0].name, "raw-cosine" if config.aligned else "most-frequent", MARGIN)
        self._prompts = Prompts(config)
        self._features = AlignedFeatures(config) if config.aligned else None
        self._splits: dict[str, LabelledImages] = {}
        self._ids: np.ndarray | None = None

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that must stand under the table: of the splits that were opened so far."""
        if self._features is not None:
            return (NOTICE,)
        return tuple(dict.fromkeys(line for split in self._splits.values() for line in split.notices))

    # ------------------------------------------------------------------------------------------------------- data

    def prepare(self, progress: Any = None) -> None:
        """Render what is missing of the pictures, or list those of the folders. Idempotent, safe under two processes.

        Raises:
            UserError: the data are not there, training has fewer classes than a list needs, or a name has too many tokens.
        """
        if self._features is not None:
            return
        if self.config.embedded and self._open is None:
            openvocab_source.render(self.config, self._cache_dir, progress)
        for split in self.config.splits:
            self._prompts.ids(self._split(split).vocabulary.names)
        classes = len(asked(self._split("train").vocabulary, "train"))
        if self.config.class_list == "drawn" and self.config.classes_per_list > classes:
            raise UserError(
                f"task.classes_per_list must be at most {classes}, the classes of training, got {self.config.classes_per_list}"
            )

    def fingerprints(self) -> dict[str, str]:
        """Digests of the splits that were opened so far, wherever they lie."""
        if self._features is not None:
            return dict.fromkeys(self.config.splits, self._features.fingerprint)
        return {name: split.fingerprint for name, split in self._splits.items()}

    def training_size(self) -> int:
        """Number of training pictures; a sample is a crop of one."""
        return self.config.train_images or 1 if self._features is not None else self._count("train")

    def collate(self, indices: np.ndarray, draws: np.ndarray) -> Batch:
        """Crops of the training pictures `indices` [B] with their lists, as `draws` [B] uint64 say, on the host."""
        if self._features is not None:
            return self._features.host_batch(indices, draws)
        data = self._split("train")
        if self._ids is None:
            self._ids = self._prompts.ids(data.vocabulary.names)
        return batches.host_batch(self.config, data, self._ids, indices, draws)

    def transfer(self, batch: Batch, device: torch.device) -> Batch:
        """Move to `device`: images in 0..1, labels int64."""
        return batches.to_device(batch, device)

    def worst_case(self, batch_size: int) -> Batch:
        """Host batch of the shapes of training, of synthetic content: all batches have the same."""
        return self.synthetic(batch_size, seed=0)

    def synthetic(self, batch_size: int, seed: int) -> Batch:
        """Host batch like `collate`'s, of random pixels or features; reads no data, but the classes of ``class_list: fixed``."""
        fixed = self.config.class_list == "fixed"
        classes = len(asked(self._vocabulary("train"), "train")) if fixed else self.config.classes_per_list
        if self._features is not None:
            return self._features.synthetic(batch_size, seed, classes)
        return batches.synthetic(self.config, self._prompts, batch_size, seed, classes)

    def edge_cases(self, batch_size: int) -> dict[str, Batch]:
        """Legal but degenerate host batches, by name."""
        return batches.edge_cases(self.synthetic(batch_size, seed=1))

    def inference_case(self, batch_size: int) -> tuple[Batch, int, str]:
        """Host batch of pictures as large as evaluated ones, asked for all classes of the test; one unit, a picture, each."""
        vocabulary = self._vocabulary("test")
        classes = asked(vocabulary, "test")
        if self._features is not None:
            case = self._features.synthetic(batch_size, 0, len(classes))
            return {name: case[name] for name in FIELDS}, 1, "pictures"
        size = (self.config.image_size,) * 2 if self.config.embedded else REAL_SIZE
        pixels = np.random.default_rng(0).integers(0, 256, (batch_size, *size, 3), np.uint8)
        ids = torch.from_numpy(self._prompts.ids([vocabulary.names[place] for place in classes]))
        names = ids.expand(batch_size, *ids.shape)
        return {"image": torch.from_numpy(pixels).movedim(-1, 1), "names": names}, 1, "pictures"

    def inference_call(self, model: nn.Module, inputs: Batch) -> Callable[[], Any]:
        """What is timed: answering as evaluation does, names read beforehand where the model can."""
        return evaluation.repeatable(self.config, model, inputs)

    # ----------------------------------------------------------------------------------------------- loss and score

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Binary cross-entropy of every class at every pixel, the mean over all of them, as published; fp32.

        Logits are resized bilinearly to the labels. A pixel of no class of the list counts, as one that is none of them.

        Raises:
            ValueError: the outputs lack ``logits``, or their shape does not fit.
        """
        labels, text = batch["labels"], batch["text_features" if self.config.aligned else "names"]
        if "logits" not in outputs:
            raise ValueError(f"forward must return the key 'logits', got {', '.join(outputs) or 'nothing'}")
        logits = outputs["logits"]
        if logits.ndim != 4 or logits.shape[:2] != text.shape[:2]:
            raise ValueError(f"logits must be [B, T, h, w] = {[*text.shape[:2], 'h', 'w']}, got {list(logits.shape)}")
        logits = evaluation.resized(logits.float(), (labels.shape[1], labels.shape[2]))
        # With a target of 0 or 1 the cross-entropy is softplus(x) - target x: there is no need of targets for all classes.
        void = labels == VOID
        hits = logits.gather(1, labels.masked_fill(void, 0)[:, None])[:, 0].masked_fill(void, 0)
        return F.softplus(logits).mean() - hits.sum() / logits.numel()

    def evaluate(
        self, model: nn.Module, device: torch.device, *, split: str = "test", quick: bool = False
    ) -> list[SampleRecord]:
        """Score `model` on `split`: one record a picture, ``<split>/<picture>``, see `openvocab_metrics`.

        `quick` counts pixels of the first `QUICK_PICTURES` alone. Otherwise ``test`` has two controls: the first pictures, where every
        class is asked for by the name of another, and the pictures of ``words``.

        Raises:
            FloatingPointError: the scores of a picture are not finite; names it.
            ValueError: scores have the wrong shape.
        """
        return self._records(partial(evaluation.ask, self.config, model, device=device), split, quick)

    def references(self, split: str = "test", device: torch.device | None = None) -> list[dict[str, Any]]:
        """Predictors that learn nothing, scored like a model on the same pictures.

        Returns:
            For each: ``name``, ``label``, ``metrics`` (what stands for a run of each) and ``records``.
        """
        name, label = "raw-cosine", "the nearest class of each image token"
        ask: Callable[..., Ask] = openvocab_references.raw_cosine
        if self._features is None:
            name, label = "most-frequent", "the class asked for that training has most pixels of"
            ask = openvocab_references.most_frequent(self._split("train"))
        records = self._records(ask, split)
        return [{"name": name, "label": label, "metrics": summarise(self.metrics, records), "records": records}]

    def pictures(self, models: Mapping[str, nn.Module], device: torch.device) -> np.ndarray | None:
        """Grid of the first test pictures: plain, with their true classes, and as each model names them; uint8 [H, W, 3]."""
        from bench.tasks import openvocab_pictures

        scenes = self._scenes("test")
        shown = [scenes.read(index) for index in range(min(PICTURES, len(scenes)))]
        columns = {"truth": [scene.labels.astype(np.int64) for scene in shown]}
        with torch.inference_mode():
            for name, model in models.items():
                question = evaluation.ask(self.config, model, scenes, device=device)
                columns[name] = [evaluation.answers(question, scenes, [scene])[0].numpy() for scene in shown]
        return openvocab_pictures.grid(shown, columns)

    # ------------------------------------------------------------------------------------------------- evaluation

    @torch.inference_mode()
    def _records(self, ask: Callable[..., Ask], split: str, quick: bool = False) -> list[SampleRecord]:
        """Records of a split by what `ask`, given its scenes and perhaps ``shuffled=True``, answers."""
        scenes = self._scenes(split)
        count = min(QUICK_PICTURES, len(scenes)) if quick else len(scenes)
        records = list(evaluation.score(self.config, ask(scenes), scenes, count, quick=quick))
        if quick or split != "test":
            return records
        question, count = ask(scenes, shuffled=True), min(QUICK_PICTURES, len(scenes))
        for record, other in zip(
            records, evaluation.score(self.config, question, scenes, count, quick=True), strict=False
        ):
            record[openvocab_metrics.SHUFFLED] = other[openvocab_metrics.COUNTS]
        if "words" in self.config.splits:
            scenes = self._scenes("words")
            for other in evaluation.score(self.config, ask(scenes), scenes, len(scenes), quick=True):
                found = {part: of for part, of in other[openvocab_metrics.COUNTS].items() if part.startswith("word/")}
                records.append({"sample": other["sample"], openvocab_metrics.WORDS: found})
        return records

    def _scenes(self, split: str) -> Scenes:
        """What a split is scored on."""
        if self._features is not None:
            return evaluation.AlignedScenes(self.config, self._features, split)
        return evaluation.PictureScenes(self._split(split), split, self._count(split), self._prompts)

    # ------------------------------------------------------------------------------------------------------ splits

    def _vocabulary(self, split: str) -> Vocabulary:
        """Classes of a split, of generated data without a look at it."""
        if self._features is not None:
            return self._features.vocabulary(split)
        generated = self.config.embedded and self._open is None
        return self.config.named_spec.vocabulary(split) if generated else self._split(split).vocabulary

    def _count(self, split: str) -> int:
        """Pictures of a split that are used."""
        limit = self.config.image_limit(split)
        return len(self._split(split)) if limit is None else min(limit, len(self._split(split)))

    def _split(self, split: str) -> LabelledImages:
        if split not in self._splits:
            if self._open is not None:
                opened = self._open(split)
            else:
                known = () if self.config.embedded or split == "train" else self._split("train").vocabulary.names
                opened = openvocab_source.open_pictures(self.config, split, self._cache_dir, known)
            if not len(opened):
                raise UserError(f"task.data is {self.config.data}, but {split} has no pictures")
            self._splits[split] = opened
        return self._splits[split]
