"""Scores of the task ``vos``: following, records, metrics, attention."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from vos_benchmark.evaluator import Evaluator

from bench.aggregates import summarise
from bench.data.video.clips import VOID, ClipInfo
from bench.tasks import vos_evaluation as evaluation
from bench.tasks.vos import QUICK_CLIPS, VideoObjectSegmentation, VOSConfig
from models.vos_memory import VOSMemory, VOSMemoryConfig
from tests.tasks.vos_data import CPU, SIZES, Copier, Seer, Squares, batch_of, make


class Whole(Copier):
    """Has no stream."""

    def __getattribute__(self, name: str):
        if name == "stream":
            raise AttributeError(name)
        return super().__getattribute__(name)

    def forward(self, frames: torch.Tensor, first_masks: torch.Tensor, start: torch.Tensor) -> dict[str, torch.Tensor]:
        return Copier()(frames, first_masks, start)


def test_who_sees_everything_scores_full_marks() -> None:
    for clips in ({}, {"void": True}, {"starts": (0, 3)}, {"step": 2}, {"hidden": ((1, 3), (1, 4))}):
        task = make(clips)
        records = task.evaluate(Seer().eval(), CPU)
        assert len(records) == 2 * SIZES["test"]
        means = summarise(task.metrics, records)
        assert {means[name] for name in ("j", "f", "jf", "miou", "j_recall", "f_recall")} == {100.0}
        assert means["j_decay"] == means["f_decay"] == 0


def test_records_are_named_by_clip_and_object_and_hold_the_factor_of_the_clip() -> None:
    records = make().evaluate(Seer().eval(), CPU)
    assert [record["sample"] for record in records[:3]] == [
        "test/clip-000/object-1",
        "test/clip-000/object-2",
        "test/clip-001/object-1",
    ]
    for record, clip in zip(records, np.arange(14) // 2, strict=True):
        factor, other = ("plain", "occlusion")[:: 1 if clip % 2 == 0 else -1]
        assert record[f"j_{factor}"] == record["j"]
        assert f"j_{other}" not in record


def test_a_clip_in_folders_has_a_name_of_one_part() -> None:
    class Folders(Squares):
        def info(self, clip: int) -> ClipInfo:
            return dataclasses.replace(super().info(clip), name=f"birds/{clip // 2}/{clip}")

    task = VideoObjectSegmentation(make().config, Path("nowhere"), Folders)
    samples = [record["sample"] for record in task.evaluate(Copier().eval(), CPU)]
    assert samples[:2] == ["test/birds:0:0/object-1", "test/birds:0:0/object-2"]
    assert len({tuple(sample.split("/")[:2]) for sample in samples}) == SIZES["test"]


def test_clips_with_other_patterns_are_scored_apart() -> None:
    plain, both = (make(shifted_clips=count).evaluate(Copier().eval(), CPU) for count in (0, 2))
    assert both[:14] == plain
    assert [set(record) for record in both[14:]] == [{"sample", "j_shifted"}] * 4
    assert both[-1]["sample"] == "shifted/clip-001/object-2"
    for options in ({"quick": True}, {"split": "validation"}):
        records = make(shifted_clips=2).evaluate(Copier().eval(), CPU, **options)
        assert not any(record["sample"].startswith("shifted") for record in records)


def test_scores_do_not_depend_on_the_evaluation_batch_or_on_the_stream() -> None:
    expected = make(eval_batch=1).evaluate(Whole().eval(), CPU)
    assert make(eval_batch=5).evaluate(Whole().eval(), CPU) == expected
    streamed = make(eval_batch=5).evaluate(Copier().eval(), CPU)
    assert [{k: v for k, v in record.items() if not k.startswith("usage")} for record in streamed] == expected
    assert len({record["j"] for record in expected}) > 4


def test_the_cheap_evaluation_is_j_of_the_first_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < QUICK_CLIPS <= 30
    monkeypatch.setattr("bench.tasks.vos.QUICK_CLIPS", 4)
    full, quick = (make().evaluate(Copier().eval(), CPU, quick=quick) for quick in (False, True))
    assert quick == [{"sample": record["sample"], "j": record["j"]} for record in full[:8]]


def test_j_and_f_of_a_clip_are_those_of_another_implementation() -> None:
    """In clips whose objects are all there from the first frame to the last, as its object set needs."""
    task, videos = make(), Squares("test")
    records = {record["sample"]: record for record in task.evaluate(Copier().eval(), CPU)}
    every = np.arange(8)
    for clip in range(len(videos)):
        truth, evaluator = videos.masks(clip, every), Evaluator()
        for frame in every[1:-1]:
            evaluator.feed_frame(truth[0], truth[frame])
        j, f = evaluator.conclude()
        for number in (1, 2):
            record = records[f"test/clip-{clip:03d}/object-{number}"]
            assert record["j"] == pytest.approx(j[number])
            assert record["f"] == pytest.approx(f[number])
            assert record["jf"] == pytest.approx((j[number] + f[number]) / 2)


def test_the_given_and_the_last_frame_are_not_scored() -> None:
    info = ClipInfo("clip", 6, 8, 8, (0, 2, 4), np.ones(6, bool))
    truth = np.zeros((6, 8, 8), np.uint8)
    for number, start in enumerate(info.first_frames, 1):
        truth[start:, 2 * number, 1:6] = number
    labels = truth.copy()
    labels[0], labels[5] = 0, 0
    labels[2][truth[2] == 2] = 0
    scored = list(evaluation.score("test/clip", labels, truth, info, quick=False))
    assert [(record["sample"], record["j"]) for record in scored] == [
        ("test/clip/object-1", 100),
        ("test/clip/object-2", 100),
    ]
    labels[3] = 0
    one, two = evaluation.score("test/clip", labels, truth, info, quick=True)
    assert (one["j"], two["j"]) == (75.0, 50.0)


def test_counts_of_a_record_by_hand() -> None:
    info = ClipInfo("clip", 3, 2, 4, (0,), np.ones(3, bool))
    truth = np.zeros((3, 2, 4), np.uint8)
    truth[:, 0] = [1, 1, 0, VOID]
    labels = np.zeros((3, 2, 4), np.uint8)
    labels[:, 0] = [0, 1, 1, 1]
    (record,) = evaluation.score("test/clip", labels, truth, info, quick=False)
    assert record["miou"] == {"foreground": [1, 3], "background": [4, 6]}
    assert record["j"] == pytest.approx(100 / 3)


def test_attention_is_told_in_shares_of_where_it_goes() -> None:
    task = make()
    for record in task.evaluate(Copier().eval(), CPU):
        shares = {part: record[f"usage_{part}"] for part in ("query", "first", "last", "other")}
        # Frames 1 .. 6: of 10 tokens 5 go to frame 0, 2 to the frame before unless that is 0, 1 to frame 2 from frame 4 on.
        assert shares == pytest.approx({"query": 170 / 6, "first": 50, "last": 100 / 6, "other": 5}, abs=1e-4)
    for record in task.evaluate(Whole().eval(), CPU) + task.evaluate(Copier().eval(), CPU, quick=True):
        assert not any(key.startswith("usage") for key in record)


def test_an_object_that_starts_late_has_its_own_first_frame() -> None:
    records = make({"starts": (0, 3)}).evaluate(Copier().eval(), CPU)
    # Of object 2 frames 4 .. 6 are scored; memory of frames before its start is memory of its start.
    shares = [records[1][f"usage_{part}"] for part in ("query", "first", "last", "other")]
    # Frame 4 reads 0, 2 and 3: all of them are first; 5 and 6 read 0 and 2 as first and the frame before as last.
    assert shares == pytest.approx([20, (80 + 60 + 60) / 3, (0 + 20 + 20) / 3, 0], abs=1e-3)


def test_the_memory_architecture_is_followed_through_its_stream() -> None:
    task = make({"starts": (0, 2)}, eval_batch=4)
    config = VOSMemoryConfig(
        **task.config.shared_options(),
        strides=(4, 2, 1),
        widths=(8, 16, 16),
        layers=(1, 1, 2),
        heads=2,
        decoder_width=8,
    )
    model = VOSMemory(config).eval()
    batch = task.transfer(batch_of(task), CPU)
    assert task.loss(model(**{name: batch[name] for name in task.input_fields}), batch).isfinite()
    streamed = task.evaluate(model, CPU)

    class Forward(nn.Module):
        def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            return model(**inputs)

    for ours, theirs in zip(streamed, task.evaluate(Forward().eval(), CPU), strict=True):
        assert ours["j"] == pytest.approx(theirs["j"], abs=0.5)
        shares = {key: value for key, value in ours.items() if key.startswith("usage")}
        assert len(shares) == 4
        assert all(value >= 0 for value in shares.values())
        assert sum(shares.values()) == pytest.approx(100, abs=1e-3)


def test_masks_are_given_to_the_stream_where_they_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    model, streams = Copier().eval(), []
    opened = Copier.stream
    monkeypatch.setattr(
        Copier, "stream", lambda self, **options: streams.append(opened(self, **options)) or streams[-1]
    )
    make({"starts": (0, 3)}, eval_batch=7).evaluate(model, CPU)
    assert [number for number, told in streams[0].calls if told] == [0, 3]
    assert len(streams[0].calls) == 8


def test_probabilities_come_back_to_the_size_of_the_files_with_their_corners_on_its_corners() -> None:
    """Four times as large: four pixels for each. Were the outermost pixels' centres held together, borders would shift by one."""
    config = VOSConfig(data="davis", image_size=32, eval_size=16, patch_multiple=1)
    clips = evaluation.read_clips(config, Squares("test", 64, 128, 2), [0])
    small = torch.zeros(16, 32, dtype=torch.int64)
    small[:, 5:], small[3:6, 28:] = 1, 2

    class Known(nn.Module):
        def forward(self, frames: torch.Tensor, first_masks: torch.Tensor, start: torch.Tensor) -> dict:
            return {"logits": 9 * F.one_hot(small, 3).permute(2, 0, 1).float().expand(1, 2, -1, -1, -1)}

    labels = evaluation.follow(Known().eval(), clips, CPU).labels[0, 1]
    expected = np.kron(small.numpy(), np.ones((4, 4)))
    rounded = np.zeros((64, 128), bool)  # bilinear resizing rounds the corners of the part within
    rounded[10:14, 110:114] = rounded[22:26, 110:114] = True
    np.testing.assert_array_equal(labels[~rounded], expected[~rounded])


def test_a_broken_model_is_named() -> None:
    class Broken(Seer):
        def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = super().forward(**inputs)["logits"]
            logits[1, 3, 0, 4, 4] = torch.nan
            return {"logits": logits}

    with pytest.raises(FloatingPointError, match="clip-001: the logits are not finite"):
        make().evaluate(Broken().eval(), CPU)

    class Small(nn.Module):
        def forward(self, frames: torch.Tensor, first_masks: torch.Tensor, start: torch.Tensor) -> dict:
            return {"logits": torch.zeros(len(frames), 8, 3, 16, 16)}

    with pytest.raises(ValueError, match=r"must be \[B, 1 \+ O, H, W\] = \[3, 3, 32, 32\], got \[3, 3, 16, 16\]"):
        make().evaluate(Small().eval(), CPU)
