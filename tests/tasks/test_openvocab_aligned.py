"""Made-up features: what they tell of classes, what guidance tells, what unseen classes share with seen ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.aggregates import summarise
from bench.data.labelled import VOID
from bench.tasks.openvocab import OpenVocabulary, OpenVocabularyConfig
from bench.tasks.openvocab_aligned import AlignedFeatures
from tests.tasks.test_openvocab import CPU


def options(**changes) -> OpenVocabularyConfig:
    small = {"grid": 8, "test_images": 12, "classes_per_list": 8, "seen_classes": 16, "unseen_classes": 8}
    return OpenVocabularyConfig(**{"data": "aligned", **small, **changes})


class Cosine(torch.nn.Module):
    """What the reference does, by forward; unseen classes, if asked to, get no logit."""

    def forward(self, image_features, text_features, **guidance) -> dict[str, torch.Tensor]:
        image = torch.nn.functional.normalize(image_features, dim=1)
        return {"logits": torch.einsum("bchw,btpc->bthw", image, text_features)}


def test_classes_are_told_by_cosines_the_better_the_less_noise_there_is() -> None:
    clear, noisy = (
        OpenVocabulary(options(feature_noise=noise), Path("nowhere")).references()[0]["metrics"] for noise in (0.0, 5.0)
    )
    assert clear["miou_seen"] > 70
    assert clear["miou_unseen"] > 70
    assert noisy["miou_harmonic"] < clear["miou_harmonic"] - 30
    assert clear["miou_shuffled"] < 10


def test_a_model_that_does_what_the_reference_does_scores_like_it() -> None:
    task = OpenVocabulary(options(), Path("nowhere"))
    (row,) = task.references()
    assert summarise(task.metrics, task.evaluate(Cosine(), CPU)) == pytest.approx(row["metrics"])
    assert task.pictures({"cosine": Cosine()}, CPU).ndim == 3
    case, _, _ = task.inference_case(2)
    assert task.inference_call(Cosine(), case)().shape == (2, 32, 32)


def test_another_seed_draws_other_classes_and_pictures() -> None:
    one, other = (AlignedFeatures(options(data_seed=seed)) for seed in (0, 1))
    assert one.fingerprint != other.fingerprint
    assert np.abs(one.text - other.text).min(-1).max() > 0
    assert not np.array_equal(one.evaluated("test", 0).labels, other.evaluated("test", 0).labels)
    assert np.array_equal(other.text, AlignedFeatures(options(data_seed=1)).text)


def test_training_has_seen_directions_alone() -> None:
    data = AlignedFeatures(options())
    batch = data.host_batch(np.arange(40), np.arange(40, dtype=np.uint64))
    known = torch.from_numpy(data.text[:16, 0])
    given = batch["text_features"][:, :, 0]
    assert torch.cdist(given.flatten(0, 1), known).min(1).values.max() < 1e-3
    unseen = torch.from_numpy(data.text[16:, 0])
    assert torch.cdist(unseen, known).min() > 0.5
    # Every label points to the direction that its tokens lie closest to, over many tokens.
    own, other = [], []
    for sample in range(40):
        cosines = torch.einsum("chw,tc->thw", batch["image_features"][sample], given[sample])
        labels = batch["labels"][sample, 2::4, 2::4].long()
        for place in labels[labels != VOID].unique():
            own.append(cosines[place][labels == place].mean())
            other.append(cosines[(place + 1) % 8][labels == place].mean())
    assert torch.stack(own).mean() > 0.6
    assert torch.stack(other).mean().abs() < 0.2


def test_guidance_parts_regions_and_does_not_know_their_classes() -> None:
    data = AlignedFeatures(options(guidance_widths=(32, 16, 16)))
    inside, across, same_class = [], [], []
    first: dict[int, torch.Tensor] = {}
    for index in range(30):
        sample = data.evaluated("test", index)
        maps = [
            torch.from_numpy(sample.guidance[2][:, sample.labels == place]).mean(1)
            for place in np.unique(sample.labels)
        ]
        spread = torch.stack(maps)
        inside.append(torch.from_numpy(sample.guidance[2]).std())
        across.append(torch.pdist(spread).mean())
        for place, vector in zip(np.unique(sample.labels), spread, strict=True):
            if int(place) in first:
                same_class.append(torch.cosine_similarity(vector, first[int(place)], dim=0))
            first[int(place)] = vector
    assert torch.stack(across).mean() > 3
    assert torch.stack(same_class).mean().abs() < 0.15


def test_prompts_of_a_class_differ_and_belong_together() -> None:
    text = torch.from_numpy(AlignedFeatures(options(prompts=4)).text)
    assert text.shape == (24, 4, 64)
    mean = torch.nn.functional.normalize(text.mean(1), dim=1)
    assert ((mean @ mean.T) > 0.8).equal(torch.eye(24, dtype=torch.bool))
    assert torch.cdist(text[:, 0], text[:, 1]).diagonal().min() > 0.1


def test_evaluated_pictures_stay_and_options_that_change_them_change_the_fingerprint() -> None:
    first, again = (AlignedFeatures(options()).evaluated("test", 3) for _ in range(2))
    assert np.array_equal(first.features, again.features)
    assert not np.array_equal(first.labels, AlignedFeatures(options()).evaluated("test", 4).labels)
    digests = {AlignedFeatures(options(**change)).fingerprint for change in ({}, {"feature_noise": 2.0}, {"grid": 12})}
    assert len(digests) == 3
    assert AlignedFeatures(options(eval_batch=1)).fingerprint in digests
    task = OpenVocabulary(options(), Path("nowhere"))
    task.prepare()
    assert set(task.fingerprints()) == {"train", "validation", "test"}
    assert "made up" in task.notices[0]
    assert task.training_size() == 2000
