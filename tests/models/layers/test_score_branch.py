import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from models.layers.score_branch import ScoreBranch, hat_integral, pool_box
from tests.models.helpers import randomise


def numerical_mean(features, box, pooled, points=200):
    """Mean of the bilinear map over each part of a box, on a fine grid of midpoints."""
    x0, y0, x1, y1 = box
    shares = (torch.arange(pooled * points) + 0.5) / (pooled * points)
    x, y = x0 + (x1 - x0) * shares, y0 + (y1 - y0) * shares
    rows = (1 - (y[:, None] - torch.arange(features.shape[1])).abs()).clamp(min=0)
    columns = (1 - (x[:, None] - torch.arange(features.shape[2])).abs()).clamp(min=0)
    dense = torch.einsum("yh,chw,xw->cyx", rows, features, columns)
    return F.avg_pool2d(dense, points)


@pytest.mark.parametrize(
    "box",
    [
        (0.0, 0.0, 5.0, 4.0),
        (1.3, 0.7, 1.9, 3.2),
        (-2.5, -1.0, 2.2, 9.0),
        (2.0, 2.0, 2.001, 2.001),
        (8.0, 8.0, 9.0, 9.0),
    ],
)
def test_pooling_is_the_integral_of_the_interpolated_map(box):
    features = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    ours = pool_box(features, torch.tensor([box, (0.0, 0.0, 1.0, 1.0)]), 4)
    # Differences of an integral lose digits in a box of a thousandth of a cell.
    tolerance = 2e-3 if box[2] - box[0] < 0.01 else 2e-5
    torch.testing.assert_close(ours[0], numerical_mean(features[0], box, 4), atol=tolerance, rtol=0)


@given(st.floats(0, 3), st.floats(0, 3), st.floats(0.1, 2), st.floats(0.1, 2))
def test_a_plane_is_pooled_to_its_values_at_the_middle_of_each_part(x0, y0, width, height):
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    plane = (2 * x - 3 * y + 1)[None, None]
    middle = (torch.arange(4) + 0.5) / 4
    expected = 2 * (x0 + width * middle)[None, :] - 3 * (y0 + height * middle)[:, None] + 1
    pooled = pool_box(plane, torch.tensor([[x0, y0, x0 + width, y0 + height]]), 4)
    torch.testing.assert_close(pooled[0, 0], expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("box", [(1.0, 1.0, 1.0, 3.0), (3.0, 1.0, 1.0, 2.0), (2.0, 2.0, 2.0, 2.0)])
def test_empty_boxes_pool_to_nothing_with_a_finite_gradient(box):
    boxes = torch.tensor([box], requires_grad=True)
    pooled = pool_box(torch.randn(1, 3, 5, 6), boxes, 4)
    assert not pooled.any()
    pooled.sum().backward()
    assert boxes.grad.isfinite().all()


def test_the_hat_has_area_one():
    x = torch.tensor([-5.0, -1.0, -0.5, 0.0, 0.5, 1.0, 5.0])
    assert hat_integral(x).tolist() == [0, 0, 0.125, 0.5, 0.875, 1, 1]


def read(queries, keys, values, heads):
    """Softmax attention of one sample, head by head, with the scale of the width."""
    parts = zip(*(part.chunk(heads, dim=-1) for part in (queries, keys, values)), strict=True)
    return torch.cat([(q @ k.T / queries.shape[-1] ** 0.5).softmax(-1) @ v for q, k, v in parts], dim=-1)


def test_the_token_reads_the_box_then_the_template():
    branch = randomise(ScoreBranch(12, 3))
    template, search = torch.randn(1, 12, 2, 2), torch.randn(1, 12, 6, 6)
    boxes = torch.tensor([[1.0, 1.5, 4.0, 3.0]])
    x = branch.norm1(branch.score_token[0])
    for i, source in enumerate((pool_box(search, boxes, 4), template)):
        tokens = source[0].flatten(1).T
        x = read(branch.proj_q[i](x), branch.proj_k[i](tokens), branch.proj_v[i](tokens), 3)
        x = branch.norm2[i](branch.proj[i](x))
    for i in range(3):
        x = branch.score_head["layers"][i](x if i == 0 else x.relu())
    torch.testing.assert_close(branch(template, search, boxes), x[0])


def test_published_size():
    with torch.device("meta"):
        branch = ScoreBranch(384, 6)
    assert sum(weight.numel() for weight in branch.parameters()) == 1_481_473
    assert "score_head.layers.2.bias" in branch.state_dict()
