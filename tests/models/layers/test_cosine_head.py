import torch
import torch.nn.functional as F

from models.layers.cosine_head import CosineHead


def test_logits_are_a_scaled_cosine_with_the_mean_prompt():
    torch.manual_seed(0)
    head = CosineHead()
    image, text = torch.randn(2, 6, 3, 4), torch.randn(2, 5, 2, 6)
    logits = head(image, text)["logits"]
    mean = text.mean(2)
    for sample, name, row, column in ((0, 0, 0, 0), (1, 4, 2, 3), (1, 2, 0, 1)):
        cosine = F.cosine_similarity(image[sample, :, row, column], mean[sample, name], dim=0)
        assert torch.allclose(logits[sample, name, row, column], 10 * cosine - 3, atol=1e-5)
    assert torch.allclose(head(7 * image, 3 * text)["logits"], logits, atol=1e-5)


def test_one_list_serves_all_samples():
    torch.manual_seed(0)
    image, text = torch.randn(2, 6, 3, 4), torch.randn(1, 5, 1, 6)
    logits = CosineHead()(image, text)["logits"]
    assert torch.allclose(logits, CosineHead()(image, text.repeat(2, 1, 1, 1))["logits"], atol=1e-6)
