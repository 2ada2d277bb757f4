"""The task: loss, scores, controls, references, pictures, inference, and data from rendering or files to scores."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from bench.aggregates import summarise
from bench.data.labelled import VOID, Vocabulary
from bench.errors import UserError
from bench.tasks import openvocab_batches as batches
from bench.tasks.openvocab import PICTURES, PRESETS, QUICK_PICTURES, OpenVocabulary, OpenVocabularyConfig
from tests.data.labelled_files import save_folder, save_names
from tests.tasks.openvocab_data import SIZES, Nothing, Seer, Segmenter, Tiles

CPU = torch.device("cpu")


def make(tiles: dict | None = None, **options) -> OpenVocabulary:
    """The task on tiles of 24 px, with lists of 4 classes."""
    config = OpenVocabularyConfig(
        **{"crop_size": 24, "scale": (1, 1), "classes_per_list": 4, "text_length": 8, **options}
    )
    return OpenVocabulary(config, Path("nowhere"), lambda split: Tiles(split, **(tiles or {})))


def batch_of(task: OpenVocabulary, count: int = 6) -> dict[str, torch.Tensor]:
    return task.transfer(task.collate(np.arange(count), np.arange(count, dtype=np.uint64) * 77), CPU)


# ---------------------------------------------------------------------------------------------------------------- loss


def test_the_loss_is_the_published_cross_entropy_with_void_as_none_of_the_classes() -> None:
    task = make({"void": True})
    batch = batch_of(task, 3)
    logits = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert (batch["labels"] == VOID).any()
    target = torch.zeros(3, 4, 24, 24)
    for place in range(4):
        target[:, place] = batch["labels"] == place
    large = F.interpolate(logits, (24, 24), mode="bilinear", align_corners=False)
    expected = F.binary_cross_entropy_with_logits(large, target)
    loss = task.loss({"logits": logits}, batch)
    torch.testing.assert_close(loss, expected)
    for one, other in zip(torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits), strict=True):
        torch.testing.assert_close(one, other)
    assert task.loss({"logits": logits.bfloat16()}, batch).dtype == torch.float32


def test_outputs_that_do_not_fit_are_refused() -> None:
    task = make()
    batch = batch_of(task, 2)
    with pytest.raises(ValueError, match="must return the key 'logits', got masks"):
        task.loss({"masks": torch.zeros(2, 4, 6, 6)}, batch)
    with pytest.raises(ValueError, match=r"logits must be \[B, T, h, w\] = \[2, 4, 'h', 'w'\], got \[2, 5, 6, 6\]"):
        task.loss({"logits": torch.zeros(2, 5, 6, 6)}, batch)


# -------------------------------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("model", [Seer, Segmenter])
def test_who_reads_names_is_right_everywhere_but_where_names_are_shuffled(model: type) -> None:
    task = make({"void": True})
    records = task.evaluate(model().eval(), CPU)
    assert [record["sample"] for record in records] == [
        *(f"test/tiles-{index}" for index in range(SIZES["test"])),
        *(f"words/tiles-{index}" for index in range(SIZES["words"])),
    ]
    found = summarise(task.metrics, records)
    assert set(found) == {metric.name for metric in task.metrics}
    assert found.pop("miou_shuffled") == 0
    assert set(found.values()) == {100.0}
    assert all(part.startswith("word/") for record in records[-3:] for part in record["counts_words"])
    # Void pixels are 64 of 576, and no record tells of them.
    assert sum(true for _, true, _ in records[0]["counts"].values()) == 512


def test_who_knows_only_seen_names_is_told_by_group() -> None:
    task = make()

    class Half(Segmenter):
        def encode_text(self, names: torch.Tensor) -> torch.Tensor:
            return super().encode_text(names).clamp_max(5)

    found = summarise(task.metrics, task.evaluate(Half().eval(), CPU))
    assert found["miou_unseen"] == found["miou_harmonic"] == found["miou_words"] == 0
    assert found["miou_seen"] > 70
    assert found["miou_gt"] == pytest.approx(found["miou_seen"] * 6 / 9)


def test_names_are_read_once_and_pictures_in_their_own_size() -> None:
    task, model = make({"sizes": ((24, 24), (24, 24), (30, 18))}, words_images=0), Segmenter().eval()
    task.evaluate(model, CPU)
    assert model.read == 2  # once more for the control
    assert model.asked[:4] == [
        ((2, 3, 24, 24), (24, 24)),
        ((1, 3, 30, 18), (30, 18)),
        ((2, 3, 24, 24), (24, 24)),
        ((1, 3, 30, 18), (30, 18)),
    ]
    plain = Seer().eval()
    task.evaluate(plain, CPU, quick=True)
    assert set(plain.sizes) == {(24, 24)}


def test_scores_do_not_depend_on_the_batch() -> None:
    tiles = {"sizes": ((24, 24), (30, 18))}
    first, second = (make(tiles, eval_batch=size).evaluate(Seer().eval(), CPU) for size in (1, 4))
    assert first == second


def test_the_cheap_evaluation_has_the_same_counts_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.tasks.openvocab.QUICK_PICTURES", 5)
    task = make()
    quick, whole = (task.evaluate(Seer().eval(), CPU, quick=quick) for quick in (True, False))
    assert quick == [{key: record[key] for key in ("sample", "counts")} for record in whole[:5]]
    assert [("counts_shuffled" in record) for record in whole] == [True] * 5 + [False] * 5
    assert QUICK_PICTURES > PICTURES
    assert len(task.evaluate(Seer().eval(), CPU, split="validation")) == 4


def test_limits_hold() -> None:
    task = make(train_images=5, test_images=2, words_images=0)
    assert task.training_size() == 5
    assert len(task.evaluate(Seer().eval(), CPU)) == 2


def test_answers_may_count_as_other_classes() -> None:
    class Coarse(Tiles):
        """Predicts 9 classes; 6, 7 and 8 count as the last one of seven."""

        scored = Vocabulary((*(f"tile {number}" for number in range(6)), "background"), ("seen",) * 7)
        evaluation_map = (0, 1, 2, 3, 4, 5, 6, 6, 6)

        def labels(self, index: int) -> np.ndarray:
            return np.minimum(super().labels(index), 6)

        def image(self, index: int) -> np.ndarray:
            return Tiles(self.split).image(index)

    config = OpenVocabularyConfig(crop_size=24, text_length=8, words_images=0)
    records = OpenVocabulary(config, Path("nowhere"), Coarse).evaluate(Seer().eval(), CPU)
    assert {part for record in records for part in record["counts"]} > {"seen/background"}
    assert all(hits == true == predicted for record in records for hits, true, predicted in record["counts"].values())


def test_scores_that_are_wrong_are_named() -> None:
    with pytest.raises(FloatingPointError, match="test/tiles-0: the scores are not finite"):
        make().evaluate(Nothing(float("nan")).eval(), CPU)

    class Small(Segmenter):
        def segment(self, image: torch.Tensor, text: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
            return super().segment(image, text, (12, 12))

    with pytest.raises(
        ValueError, match=r"answers must be \[4, 24, 24\] with classes below 9, got \[4, 12, 12\] up to"
    ):
        make().evaluate(Small().eval(), CPU)


def test_a_model_may_answer_with_classes() -> None:
    class Labeller(Segmenter):
        def segment_labels(self, image: torch.Tensor, text: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
            return super().segment(image, text, size).argmax(1)

        def segment(self, *arguments: object) -> torch.Tensor:
            raise AssertionError("holds a map of every class")

    assert make().evaluate(Labeller().eval(), CPU) == make().evaluate(Segmenter().eval(), CPU)


def test_references_learn_nothing_and_the_gate_asks_for_one_of_them() -> None:
    task = make()
    (row,) = task.references()
    assert row["records"][0]["counts"]["seen/tile 0"][2] == 576
    assert row["metrics"]["miou_unseen"] == row["metrics"]["miou_harmonic"] == 0
    assert row["metrics"]["miou_seen"] == pytest.approx(row["metrics"]["pixel_accuracy"] / 6)
    assert (task.gate.metric, task.gate.reference) == (task.metrics[0].name, row["name"])
    (aligned,) = OpenVocabulary(OpenVocabularyConfig(data="aligned", test_images=2), Path("nowhere")).references()
    assert aligned["name"] == "raw-cosine"
    assert task.metrics[0].name == "miou_harmonic"
    assert OpenVocabulary(PRESETS["paper"], Path("nowhere")).metrics[0].name == "miou_gt"


def test_pictures_show_truth_and_answers_alike() -> None:
    task = make({"sizes": ((24, 24), (30, 18)), "void": True})
    grid = task.pictures({"right": Segmenter().eval(), "blind": Nothing().eval()}, CPU)
    assert grid.dtype == np.uint8
    width = (grid.shape[1] + 4) // 4
    plain, truth, right, blind = (grid[24:, place * width : (place + 1) * width - 4].astype(int) for place in range(4))
    assert np.abs(truth - right).mean() < np.abs(truth - blind).mean() / 3
    assert np.abs(truth - plain).mean() > 10


@pytest.mark.parametrize("model", [Seer, Segmenter])
def test_what_is_timed_answers_for_all_classes_of_the_test(model: type) -> None:
    task, asked = make(image_size=32), model().eval()
    case, units, unit = task.inference_case(3)
    assert (units, unit) == (1, "pictures")
    moved = task.transfer(case, CPU)
    call = task.inference_call(asked, {name: moved[name] for name in task.input_fields})
    assert call().shape == (3, 32, 32)
    call()
    assert getattr(asked, "read", 1) == 1


# ------------------------------------------------------------------------------------------------------- whole ways


def test_embedded_pictures_from_rendering_to_scores(tmp_path: Path) -> None:
    config = OpenVocabularyConfig(
        image_size=32,
        crop_size=32,
        train_images=3,
        validation_images=1,
        test_images=4,
        words_images=1,
        classes_per_list=5,
    )
    task = OpenVocabulary(config, tmp_path)
    assert task.inference_case(1)[0]["names"].shape == (1, 50, 1, 32)  # two of stuff and 2 x 6 x 4 things
    task.prepare()
    assert set(task.fingerprints()) == set(config.splits)
    assert any("rendered" in line for line in task.notices)
    batch = batch_of(task, 3)
    assert {name: list(value.shape) for name, value in batch.items()} == {
        "image": [3, 3, 32, 32],
        "names": [3, 5, 1, 32],
        "labels": [3, 32, 32],
    }
    records = task.evaluate(Nothing().eval(), CPU)
    assert set(summarise(task.metrics, records)) == {metric.name for metric in task.metrics}


def test_real_pictures_from_files_to_scores(tmp_path: Path) -> None:
    for folder, split in (("a", "train"), ("b", "test")):
        data = Tiles(split)
        for index in range(len(data)):
            for kind, pixels in (("images", data.image(index)), ("masks", data.labels(index).astype(np.uint8))):
                (tmp_path / folder / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / folder / kind / f"{index}.png")
        (tmp_path / folder / "classes.txt").write_text("\n".join(data.vocabulary.names))
    options = {"crop_size": 24, "classes_per_list": 4, "text_length": 8, "train_images": None, "test_images": None}
    config = OpenVocabularyConfig(
        data="folder", data_path=str(tmp_path / "a"), test_data="folder", test_path=str(tmp_path / "b"), **options
    )
    task = OpenVocabulary(config, tmp_path)
    task.prepare()
    labels = batch_of(task, 2)["labels"]
    assert ((labels < 4) | (labels == VOID)).all()
    assert (labels < 4).any()
    found = summarise(task.metrics, task.evaluate(Segmenter().eval(), CPU))
    assert found["miou_gt"] == found["miou_unseen"] == 100
    with pytest.raises(UserError, match=r"task\.data_path is not set: give the folder of folder"):
        OpenVocabulary(dataclasses.replace(config, data_path=None), tmp_path).prepare()


def test_errors_name_the_options_of_training_or_of_the_test(tmp_path: Path) -> None:
    train, test = (str(save_folder(tmp_path / name, 12)) for name in ("a", "b"))
    save_names(tmp_path / "few.txt", ["sky"])

    def score(**options: str) -> None:
        config = OpenVocabularyConfig(data="folder", classes_per_list=3, **{"data_path": train, **options})
        task = OpenVocabulary(config, tmp_path)
        task.prepare()
        task.evaluate(Nothing().eval(), CPU)

    def line(**options: str) -> str:
        with pytest.raises(UserError) as error:
            score(**options)
        return str(error.value)

    nowhere = str(tmp_path / "nowhere")
    assert line(test_path=nowhere).startswith("task.test_path: ")
    assert line(data_path=nowhere, test_path=test).startswith("task.data_path: ")
    assert line(test_path=test, test_class_file=nowhere).startswith("task.test_class_file: ")
    assert line(class_file=nowhere, test_data="folder", test_path=test).startswith("task.class_file: ")
    # The options of the test stand for those of training where they are left out.
    assert line(test_data="voc-20").startswith(
        "task.data_path (or a folder of its own for task.test_data in task.test_path): "
    )
    masks = line(test_path=test, test_class_file=str(tmp_path / "few.txt"))
    assert masks.startswith("task.test_path: the mask ")


def test_what_training_lacks_is_told_before_any_work() -> None:
    with pytest.raises(UserError, match=r"task\.classes_per_list must be at most 6, the classes of training, got 7"):
        make(classes_per_list=7).prepare()
    with pytest.raises(UserError, match=r"task\.text_length is 4, but 'tile 0' has 6 tokens: set it to 6"):
        make(text_length=4).prepare()


def test_the_order_of_classes_is_a_symmetry_that_comes_back() -> None:
    task, model = make({"void": True}), Seer().eval()
    batch = batch_of(task)
    plain = model(batch["image"], batch["names"])
    changed = batches.permute_classes(batch, torch.Generator().manual_seed(3))
    outputs = model(changed["image"], changed["names"])
    assert not torch.equal(outputs["logits"], plain["logits"])
    torch.testing.assert_close(task.loss(outputs, changed), task.loss(plain, batch))
    restored = batches.restore_classes(outputs, torch.Generator().manual_seed(3))
    assert torch.equal(restored["logits"], plain["logits"])
