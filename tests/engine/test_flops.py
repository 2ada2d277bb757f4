from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.engine.flops import triangulate
from bench.errors import UserError

WIDTH, HEADS, TOKENS, SAMPLES = 32, 4, 24, 2


class Block(nn.Module):
    """Attention and a two-layer perceptron, with the attention written in one of several ways."""

    def __init__(self, attention: str = "sdpa", claim: float = 1.0) -> None:
        super().__init__()
        self.attention, self.claim = attention, claim
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        b, n, d = tokens.shape
        q, k, v = self.qkv(self.norm(tokens)).view(b, n, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4)
        if self.attention == "sdpa":
            mixed = F.scaled_dot_product_attention(q, k, v)
        elif self.attention == "einsum":
            scores = torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
            mixed = torch.einsum("bhij,bhjd->bhid", scores, v)
        elif self.attention == "einsum with ellipsis":
            scores = torch.einsum("...id, ...jd -> ...ij", q, k).softmax(-1)
            mixed = torch.einsum("...ij, ...jd", scores, v)
        else:
            mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        tokens = tokens + self.out(mixed.transpose(1, 2).reshape(b, n, d))
        return {"tokens": tokens + self.mlp(tokens)}

    def flops(self, batch: dict[str, Tensor]) -> int:
        return int(self.claim * closed_form(*batch["tokens"].shape))


def closed_form(b: int, n: int, d: int) -> int:
    macs = b * n * d * (3 * d + d + 8 * d) + b * n * n * 2 * d
    return 2 * macs


def batch() -> dict[str, Tensor]:
    return {"tokens": torch.randn(SAMPLES, TOKENS, WIDTH), "target": torch.randn(SAMPLES, TOKENS, WIDTH)}


@pytest.mark.parametrize("attention", ["sdpa", "matmul", "einsum", "einsum with ellipsis"])
def test_all_three_counters_give_the_closed_form(attention: str) -> None:
    report = triangulate(lambda: Block(attention), batch(), ["tokens"])
    expected = closed_form(1, TOKENS, WIDTH)
    assert report.counters == {"torch": expected, "fvcore": expected, "closed_form": expected}
    assert report.forward_per_sample == expected
    assert report.device == "meta"
    # Backward costs twice the forward, but for the first product: the tokens need no gradient here.
    assert 2.9 * expected <= report.training_per_sample <= 3 * expected
    assert "layer_norm" in report.other_operators
    assert "multiply-add" in report.convention


def test_counts_do_not_depend_on_the_number_of_samples() -> None:
    one = {name: value[:1] for name, value in batch().items()}
    assert triangulate(Block, one, ["tokens"]) == triangulate(Block, batch(), ["tokens"])


@pytest.mark.parametrize("claim", [0.9, 1.1])
def test_a_liar_is_an_error_that_names_arm_numbers_and_mend(claim: float) -> None:
    with pytest.raises(UserError, match=r"arm fibber.*torch .*fvcore .*closed_form .*mend the model's flops") as error:
        triangulate(lambda: Block(claim=claim), batch(), ["tokens"], arm="fibber")
    assert "\n" not in str(error.value)


def test_a_model_without_closed_form_is_counted_unless_one_is_required() -> None:
    class Plain(nn.Linear):
        def forward(self, tokens: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return {"tokens": super().forward(tokens)}

    report = triangulate(lambda: Plain(WIDTH, 5), batch(), ["tokens"])
    assert report.counters["closed_form"] is None
    assert report.forward_per_sample == 2 * TOKENS * WIDTH * 5
    with pytest.raises(UserError, match="offers no flops"):
        triangulate(lambda: Plain(WIDTH, 5), batch(), ["tokens"], require_closed_form=True)


@torch.library.custom_op("isochron_test::mystery", mutates_args=())
def mystery(x: Tensor) -> Tensor:
    return x.clone()


@mystery.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


mystery.register_autograd(lambda context, gradient: gradient)


class WithMystery(Block):
    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        return super().forward(mystery(tokens))


def test_an_unlisted_operator_is_an_error_until_it_has_a_formula_or_is_negligible() -> None:
    with pytest.raises(UserError, match=r"arm dark.*isochron_test::mystery.*negligible"):
        triangulate(WithMystery, batch(), ["tokens"], arm="dark")
    report = triangulate(WithMystery, batch(), ["tokens"], negligible={"isochron_test::mystery"})
    assert report.counters["fvcore"] == closed_form(1, TOKENS, WIDTH)
    # With a formula it counts, and then the others, which lack it, disagree.
    with pytest.raises(UserError, match="one counter misses an operator"):
        triangulate(WithMystery, batch(), ["tokens"], handles={"isochron_test::mystery": lambda i, o: 10**9})


def test_an_own_autograd_function_cannot_hide_work() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(context: object, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(context: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return 2 * gradient

    class Hidden(Block):
        def forward(self, tokens: Tensor) -> dict[str, Tensor]:
            return super().forward(Twice.apply(tokens))

    with pytest.raises(UserError, match=r"prim::PythonOp\.Twice"):
        triangulate(Hidden, batch(), ["tokens"])
    triangulate(Hidden, batch(), ["tokens"], negligible={"prim::PythonOp.Twice"})


def test_a_model_that_needs_values_is_counted_on_the_cpu() -> None:
    class Masked(Block):
        def forward(self, tokens: Tensor) -> dict[str, Tensor]:
            keep = torch.arange(tokens.shape[1], device=tokens.device) % 2 == 0
            return super().forward(tokens[:, keep])

        def flops(self, batch: dict[str, Tensor]) -> int:
            b, n, d = batch["tokens"].shape
            return closed_form(b, n // 2, d)

    report = triangulate(Masked, batch(), ["tokens"])
    assert report.device == "cpu"
    assert set(report.counters.values()) == {closed_form(1, TOKENS // 2, WIDTH)}


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_the_gradient_of_a_grouped_convolution_costs_what_it_does(groups: int) -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 1)
            self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=groups)

        def forward(self, image: Tensor) -> dict[str, Tensor]:
            return {"image": self.grouped(self.first(image))}

        def flops(self, batch: dict[str, Tensor]) -> int:
            return 2 * len(batch["image"]) * 64 * (3 * 8 + 9 * 8 * 8 // groups)

    report = triangulate(Grouped, {"image": torch.randn(2, 3, 8, 8)}, ["image"])
    first = 2 * 64 * 3 * 8
    assert report.training_per_sample == 3 * report.forward_per_sample - first  # nothing wants the picture's gradient


def test_convolutions_broadcast_products_and_frozen_parts() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1, groups=1)
            self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
            self.mix = nn.Parameter(torch.randn(8, 8))
            self.conv.requires_grad_(False)

        def forward(self, image: Tensor) -> dict[str, Tensor]:
            x = self.mix @ self.conv(image)  # [8, 8] x [B, 8, 8, 8]: the first factor is broadcast
            return {"image": F.interpolate(self.up(x), scale_factor=2.0, mode="bilinear")}

        def flops(self, batch: dict[str, Tensor]) -> int:
            b = batch["image"].shape[0]
            return 2 * b * (3 * 8 * 9 * 64 + 8 * 8 * 8 * 8 + 64 * 8 * 4 * 4)

    report = triangulate(Mixed, {"image": torch.randn(3, 3, 8, 8)}, ["image"], require_closed_form=True)
    assert len(set(report.counters.values())) == 1
    frozen = 2 * 3 * 8 * 9 * 64
    assert report.training_per_sample == 3 * report.forward_per_sample - 2 * frozen - 2 * 8**4  # no gradient to conv


def test_gradient_checkpointing_shows_in_training_but_not_in_forward() -> None:
    class Checkpointed(Block):
        def forward(self, tokens: Tensor) -> dict[str, Tensor]:
            if self.training:
                return torch.utils.checkpoint.checkpoint(super().forward, tokens, use_reentrant=False)
            return super().forward(tokens)

    plain, again = (triangulate(kind, batch(), ["tokens"]) for kind in (Block, Checkpointed))
    assert again.forward_per_sample == plain.forward_per_sample
    assert again.training_per_sample > 1.2 * plain.training_per_sample


def test_an_auxiliary_loss_counts_as_training() -> None:
    class Distilled(Block):
        def __init__(self) -> None:
            super().__init__()
            self.projector = nn.Linear(WIDTH, 10 * WIDTH)

        def auxiliary_loss(self, batch: dict[str, Tensor], outputs: dict[str, Tensor]) -> Tensor:
            return self.projector(batch["target"]).mean() + self.projector(outputs["tokens"]).mean()

    plain, distilled = (triangulate(kind, batch(), ["tokens"]) for kind in (Block, Distilled))
    assert distilled.forward_per_sample == plain.forward_per_sample
    extra = 2 * TOKENS * WIDTH * 10 * WIDTH
    assert distilled.training_per_sample >= plain.training_per_sample + 4 * extra


@pytest.mark.parametrize(("until", "share"), [(1.0, 1.0), (0.5, 0.5), (0.33, 0.3)])
def test_a_distillation_that_stops_counts_for_its_share_of_the_run(until: float, share: float) -> None:
    calls = []

    class Distilled(Block):
        def __init__(self) -> None:
            super().__init__()
            self.projector = nn.Linear(WIDTH, 10 * WIDTH)

        def auxiliary_loss(self, batch: dict[str, Tensor], outputs: dict[str, Tensor], progress: float = 0.0) -> Tensor:
            calls.append(progress)
            if progress >= until:
                return self.projector.weight.sum() * 0
            return self.projector(batch["target"]).mean()

    plain, distilled = (triangulate(kind, batch(), ["tokens"]) for kind in (Block, Distilled))
    extra = 2 * 2 * TOKENS * WIDTH * 10 * WIDTH  # forward, and the gradient of the weight
    assert distilled.training_per_sample == plain.training_per_sample + round(share * extra)
    assert len(calls) == (2 if until == 1 else 10)


def test_a_bug_in_the_model_is_raised_as_it_is() -> None:
    class Broken(Block):
        def forward(self, tokens: Tensor) -> dict[str, Tensor]:
            raise ZeroDivisionError("one over zero tokens")

    with pytest.raises(ZeroDivisionError, match="one over zero"):
        triangulate(Broken, batch(), ["tokens"])


def test_record_has_the_keys_of_the_store() -> None:
    record = triangulate(Block, batch(), ["tokens"]).to_record()
    assert {"forward_per_sample", "training_per_sample", "counters", "convention"} <= set(record)
    assert set(record["counters"]) == {"torch", "fvcore", "closed_form"}
