import pytest
import torch
from torch import nn

from models.layers.chunks import in_chunks
from models.layers.cost_volume import best_classes, cost_volume, embed_features, mean_text, pick


def test_cost_is_the_cosine_of_every_place_with_every_prompt():
    image, text = torch.randn(2, 6, 3, 4), torch.randn(2, 5, 2, 6)
    cost = cost_volume(image, text)
    assert cost.shape == (2, 5, 2, 3, 4)
    expected = torch.cosine_similarity(image[1, :, 2, 3], text[1, 4, 0], dim=0)
    assert cost[1, 4, 0, 2, 3] == pytest.approx(expected.item(), abs=1e-6)
    assert torch.equal(cost_volume(image, text[:1])[1, 0], cost_volume(image, text[[0, 0]])[1, 0])


def test_mean_text_averages_prompts_before_their_length_is_made_one():
    text = torch.tensor([[[[3.0, 0.0], [0.0, 1.0]]]])
    assert mean_text(text)[0, 0].tolist() == pytest.approx([0.9486833, 0.3162278])


def test_best_classes_fit_some_place_by_some_prompt():
    cost = torch.zeros(2, 4, 2, 2, 2)
    cost[0, 2, 1, 0, 1] = cost[0, 3, 0, 1, 1] = cost[1, 0, 0, 0, 0] = cost[1, 3, 1, 1, 0] = 0.1
    cost[0, 1] = 0.09
    kept = best_classes(cost, 2)
    assert [sorted(classes) for classes in kept.tolist()] == [[2, 3], [0, 3]]
    assert torch.equal(pick(cost, kept)[1, 1], cost[1, kept[1, 1]])
    names = torch.arange(4)[None, :, None].expand(1, 4, 3)
    assert torch.equal(pick(names, kept)[..., 2], kept)


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_feature_volume_need_not_be_made(chunk):
    """Also at edges, and on a map that is smaller than the kernel."""
    convolution = nn.Conv2d(12, 4, 7, padding=3)
    image, text = torch.randn(2, 6, 3, 9), torch.randn(2, 5, 3, 6)
    vectors = nn.functional.normalize(nn.functional.normalize(text, dim=-1).mean(2), dim=-1)
    places = nn.functional.normalize(image, dim=1)[:, None].expand(-1, 5, -1, -1, -1)
    volume = torch.cat([places, vectors[..., None, None].expand(-1, -1, -1, 3, 9)], dim=2)
    expected = convolution(volume.flatten(0, 1)).unflatten(0, (2, 5)).permute(0, 1, 3, 4, 2)
    torch.testing.assert_close(embed_features(convolution, image, text, chunk), expected, atol=1e-5, rtol=0)


def test_chunks_see_no_more_than_their_size_and_come_back_in_order():
    x, sizes = torch.randn(2, 7, 3), []

    def double(part):
        sizes.append(part.shape[1])
        return 2 * part

    assert torch.equal(in_chunks(double, x, 3, dim=1), 2 * x)
    assert torch.equal(in_chunks(double, x, None, dim=1), 2 * x)
    assert sizes == [3, 3, 1, 7]
