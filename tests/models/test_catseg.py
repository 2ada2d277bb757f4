"""CAT-Seg as a whole: what comes out, in training and on the windows of a picture, and what is kept of the text."""

import copy
from dataclasses import replace

import pytest
import torch

from models.catseg import CATSeg
from models.layers.text_tower import TextCache
from tests.models.small_catseg import inputs, small, step

# --- forward -------------------------------------------------------------------------------------------------------


def test_logits_follow_the_order_of_the_classes_and_padding_does_not_matter():
    model, batch = small().eval(), inputs()
    expected = model(**batch)["logits"]
    assert expected.shape == (2, 5, 16, 16)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(batch["names"][:, order], (0, 4))
    found = model(image=batch["image"], names=padded)["logits"]
    torch.testing.assert_close(found, expected[:, order], atol=1e-5, rtol=1e-4)


def test_a_fixed_list_is_a_drawn_one_that_all_samples_share():
    model, batch = small().eval(), inputs()
    batch["names"][1] = batch["names"][0]
    expected = model(**batch)["logits"]
    model.config = replace(model.config, class_list="fixed")
    torch.testing.assert_close(model(**batch)["logits"], expected, atol=1e-5, rtol=1e-4)


def test_towers_aligned_by_cosine_fit_the_aggregator():
    aligned = small(head="cosine")
    weights = aligned.state_dict()
    assert {name.split(".")[0] for name in weights} == {"image_tower", "text_tower", "cosine"}
    fresh = small().load_state_dict({k: v for k, v in weights.items() if "tower" in k}, strict=False)
    assert fresh.unexpected_keys == []
    assert all(name.startswith("aggregator.") for name in fresh.missing_keys)
    batch = inputs()
    assert aligned(**batch)["logits"].shape == (2, 5, 4, 4)
    text = aligned.encode_text(batch["names"][0])
    assert aligned.segment(torch.rand(1, 3, 20, 24), text, (20, 24)).shape == (1, 5, 20, 24)


def test_gradients_reach_every_weight():
    model = small(prompts=2)
    model(**inputs(prompts=2))["logits"].square().mean().backward()
    assert [name for name, weight in model.named_parameters() if not weight.grad.any()] == []


def test_bfloat16_is_finite():
    model = small()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**inputs())["logits"].float().square().mean()
    loss.backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_inputs_that_do_not_fit():
    model, batch = small(), inputs()
    with pytest.raises(ValueError, match=r"names must be \[B, T, P, L\] with B = 2"):
        model(image=batch["image"], names=batch["names"][0])
    for head in ("aggregator", "cosine"):
        with pytest.raises(ValueError, match=r"and P = 1 prompts, got \[2, 5, 3, 7\]"):
            small(head=head)(**inputs(prompts=3))
    for names in (inputs(prompts=3)["names"][0], batch["names"]):
        with pytest.raises(ValueError, match=r"names must be \[T, P, L\] with P = 1 prompts, got \["):
            model.encode_text(names)
    with pytest.raises(ValueError, match=r"image must be \[B, 3, 16, 16\], as crop_size says"):
        model(**inputs(size=20))


# --- evaluation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inference", ["sliding", "single"])
def test_segment_is_forward_on_the_windows(inference):
    model = small(inference=inference).eval()
    batch = inputs(size=20)
    text = model.encode_text(batch["names"][0])
    assert text.shape == (5, 1, 12)
    windows = model.config.windows
    assert windows.count == (5 if inference == "sliding" else 1)
    crops = windows.cut(batch["image"])
    lists = batch["names"][:1].expand(len(crops), -1, -1, -1)
    (expected,) = windows.merge(model(image=crops, names=lists)["logits"], (9, 13))
    found = model.segment(batch["image"], text, (9, 13))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_places_that_are_not_finite_have_no_label():
    model, batch = small().eval(), inputs(size=20)
    batch["image"][..., 3, 3] = torch.nan
    labels = model.segment_labels(batch["image"], model.encode_text(batch["names"][0]), (20, 20))
    assert (labels == -1).all(), "attention carries it everywhere"


def test_chunks_of_classes_change_nothing():
    model = small().eval()
    batch = inputs(size=20)
    text = model.encode_text(batch["names"][0])
    whole, labels = (ask(batch["image"], text, (20, 20)) for ask in (model.segment, model.segment_labels))
    assert torch.equal(labels, whole.argmax(1))
    for part in (model, model.aggregator):
        part.config = replace(part.config, class_chunk=2)
    torch.testing.assert_close(model.segment(batch["image"], text, (20, 20)), whole, atol=1e-5, rtol=0)
    first, second = whole.topk(2, dim=1).values.unbind(1)
    clear = first - second > 1e-5  # the classes of a random model are close to one another
    assert clear.float().mean() > 0.5
    assert torch.equal(model.segment_labels(batch["image"], text, (20, 20))[clear], labels[clear])


@pytest.mark.parametrize("text_training", ["graph", "cached"])
def test_nothing_is_left_of_an_earlier_vocabulary(text_training):
    """Evaluate with one list of classes, train a step on another, evaluate with a third: as if there had been nothing else."""
    model = small(text_training=text_training).eval()
    first, trained, last = inputs(classes=4, seed=1), inputs(classes=6, seed=2), inputs(classes=3, seed=3)
    with torch.inference_mode():
        before = model.segment(first["image"], model.encode_text(first["names"][0]), (16, 16))
    step(model, trained)
    fresh = CATSeg(model.config).eval()
    fresh.load_state_dict(model.state_dict())
    with torch.inference_mode():
        found, expected = (
            net.segment(last["image"], net.encode_text(last["names"][0]), (16, 16)) for net in (model, fresh)
        )
        again = model.segment(first["image"], model.encode_text(first["names"][0]), (16, 16))
    assert found.shape[1] == 3
    assert torch.equal(found, expected)
    assert not torch.allclose(again, before, atol=1e-4)


# --- text ----------------------------------------------------------------------------------------------------------


def test_cached_text_is_the_same_and_frozen():
    graph, batch = small(), inputs()
    cached = CATSeg(replace(graph.config, text_training="cached"))
    cached.load_state_dict(graph.state_dict())
    for _ in range(2):
        torch.testing.assert_close(cached(**batch)["logits"], graph(**batch)["logits"], atol=1e-5, rtol=1e-4)
    assert not any(weight.requires_grad for weight in cached.text_tower.parameters())
    cached(**batch)["logits"].sum().backward()
    assert all(weight.grad is not None for weight in cached.image_tower.parameters())


def test_a_cached_tower_reads_a_name_once(monkeypatch):
    model, batch, read = small(text_training="cached"), inputs(), []
    encode = model.text_tower.encode
    monkeypatch.setattr(model.text_tower, "encode", lambda tokens: read.append(len(tokens)) or encode(tokens))
    model(**batch), model.encode_text(batch["names"][0])
    assert read == [1] * 10
    model.text_tower.load_state_dict({name: value * 2 for name, value in model.text_tower.state_dict().items()})
    model.encode_text(batch["names"][0])
    assert read == [1] * 15
    assert isinstance(copy.deepcopy(model)._cache, TextCache)


def test_what_is_cached_of_a_text_does_not_depend_on_what_is_read_with_it():
    model, names = small(text_training="cached").eval(), inputs()["names"][0]
    together = model.encode_text(names)
    alone = copy.deepcopy(model)
    for number in reversed(range(len(names))):
        alone.encode_text(names[number : number + 1])
    assert torch.equal(alone.encode_text(names), together), "or a run that goes on is not the same to the bit"
